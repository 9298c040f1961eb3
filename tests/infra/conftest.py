"""A test API server under the rights of k8s/rbac.yaml, and the command run against it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from infra.submit import main
from tests.conftest import ROOT
from tests.infra.api_server import ApiServer

RBAC = ROOT / "k8s" / "rbac.yaml"
LOCKS = ROOT / "infra" / "locks"


def role_rules():
    documents = list(yaml.safe_load_all(RBAC.read_text()))
    return next(item for item in documents if item["kind"] == "Role")["rules"]


def job(name, command=("python", "-m", "trainer.launch"), completions=None, image="canopy:0.1.0"):
    """A Job as small as the schemas allow."""
    spec: dict[str, object] = {
        "template": {
            "metadata": {"labels": {"app.kubernetes.io/name": "canopy"}},
            "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "canopy", "image": image, "command": list(command)}],
            },
        }
    }
    if completions:
        spec |= {"completionMode": "Indexed", "completions": completions, "parallelism": completions}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def settings_map(name, **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def packages(lock):
    """Name to version, of what the images' Python 3.11 installs on Linux on x86-64."""
    found = {}
    for line in lock.read_text().splitlines():
        match = re.match(r"([\w.-]+)(?:\[[\w,-]+\])?==(\S+)(?: ; (.+?))? \\$", line)
        if match and not re.search(r"win32|never|Windows|machine != 'x86_64'|version >=", match[3] or ""):
            found[match[1]] = match[2]
    return found


@pytest.fixture
def server():
    with ApiServer(rules=role_rules()) as running:
        yield running


@pytest.fixture
def write(tmp_path):
    """Writes objects into a manifest and returns its path."""

    def write(name, *objects):
        path = tmp_path / name
        path.write_text("---\n".join(yaml.safe_dump(item) for item in objects))
        return path

    return write


@pytest.fixture
def start(server, tmp_path):
    """Starts `python -m infra.submit` against the server, as a user would."""

    def start(*flags):
        config = server.kubeconfig(tmp_path / "kubeconfig")
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "KUBECONFIG": str(config)}
        return subprocess.Popen(
            [sys.executable, "-m", "infra.submit", *map(str, flags)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )

    return start


@pytest.fixture
def submit(server, tmp_path, monkeypatch, capsys):
    """Runs it to its end, within this process: importing the client takes a second."""

    def submit(*flags, **options):
        config = server.kubeconfig(tmp_path / "kubeconfig", **options)
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(config))
        capsys.readouterr()
        code = main(list(map(str, flags)))
        shown = capsys.readouterr()
        return subprocess.CompletedProcess(flags, code, shown.out, shown.err)

    return submit


def k8s_manifests():
    return sorted(Path(ROOT, "k8s").glob("*.yaml"))
