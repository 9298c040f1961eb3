"""Reads the manifests as a cluster would: objects, pods, rendered overlays, a container's command line."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

Object = dict[str, Any]

K8S = ROOT / "k8s"
OVERLAYS = sorted(path.parent for path in (ROOT / "infra" / "overlays").glob("*/kustomization.yaml"))
FILES = sorted(path for path in K8S.glob("[!.]*.yaml") if path.name != "kustomization.yaml")
STAGES = ("preprocess", "train", "predict", "evaluate", "tune", "tensorboard")
INSTANCE = "app.kubernetes.io/instance"
CONTROLLER_UID = "batch.kubernetes.io/controller-uid"


@functools.cache
def objects(path: Path) -> list[Object]:
    """The objects of a manifest."""
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def file_of(stage: str) -> Path:
    """The manifest of a stage."""
    return K8S / (f"{stage}.yaml" if stage == "tensorboard" else f"{stage}-job.yaml")


def find_kubectl() -> str | None:
    """The path of this environment's kubectl, else of any."""
    return shutil.which("kubectl", path=str(Path(sys.executable).parent)) or shutil.which("kubectl")


def kubectl() -> str:
    """The path of kubectl; skips where there is none."""
    found = find_kubectl()
    if not found:
        pytest.skip("overlays are rendered by kubectl, and there is none")
    return found


@functools.cache
def rendered(folder: Path) -> list[Object]:
    """The objects that `kubectl kustomize` makes of a folder."""
    done = subprocess.run([kubectl(), "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def where() -> list[Path]:
    """Everything that makes objects: each manifest, the base, each overlay."""
    return [*FILES, K8S, *OVERLAYS]


def every(source: Path) -> list[Object]:
    """The objects of a manifest, or of a folder that kustomize renders."""
    return rendered(source) if source.is_dir() else objects(source)


def of_kind(found: list[Object], *kinds: str) -> list[Object]:
    return [each for each in found if each["kind"] in kinds]


def the(found: list[Object], kind: str, name: str) -> Object:
    """The one object of that kind and name."""
    (one,) = (each for each in of_kind(found, kind) if each["metadata"]["name"] == name)
    return one


def template(workload: Object) -> Object:
    """The pod of a workload, with metadata and spec; a Pod is its own."""
    return workload if workload["kind"] == "Pod" else dict(workload["spec"]["template"])


def pods(found: list[Object]) -> Iterator[tuple[str, Object]]:
    """Name and pod of everything that makes pods."""
    for each in found:
        if each["kind"] == "Pod" or "template" in each.get("spec", {}):
            yield f"{each['kind']}/{each['metadata']['name']}", template(each)


def containers(pod: Object) -> list[Object]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def all_pods() -> list[Any]:
    """Every pod of every manifest and overlay, as pytest's parameters."""
    parameters = []
    for source in where():
        if source.is_dir() and not find_kubectl():
            reason = pytest.mark.skip("overlays are rendered by kubectl, and there is none")
            parameters.append(pytest.param({}, id=source.name, marks=reason))
            continue
        for name, pod in pods(every(source)):
            parameters.append(pytest.param(pod, id=f"{source.relative_to(ROOT)}-{name}"))
    return parameters


@dataclass(frozen=True)
class Command:
    """What the kubelet would start."""

    words: list[str]
    environment: dict[str, str]  # what the manifest says, not what the image does


def command_of(found: list[Object], workload: Object, index: int = 0) -> Command:
    """The command line and environment of a workload's container, as the kubelet makes them.

    Args:
        found: all objects: ConfigMaps are looked up in them.
        workload: a Job or a Deployment.
        index: of the pod in an Indexed Job.
    """
    pod = template(workload)
    container = pod["spec"]["containers"][0]
    environment: dict[str, str] = {}
    for source in container.get("envFrom", []):
        environment |= the(found, "ConfigMap", source["configMapRef"]["name"])["data"]
    labels = pod["metadata"].get("labels", {}) | {
        CONTROLLER_UID: workload["metadata"].get("uid", "0e0f5b1c-uid-of-the-job")
    }
    annotations = pod["metadata"].get("annotations", {})
    for each in container.get("env", []):
        environment[each["name"]] = (
            expand(each["value"], environment)
            if "value" in each
            else _field(each["valueFrom"]["fieldRef"]["fieldPath"], labels, annotations)
        )
    if workload["spec"].get("completionMode") == "Indexed":
        environment["JOB_COMPLETION_INDEX"] = str(index)
        environment["HOSTNAME"] = f"{workload['metadata']['name']}-{index}"
    words = [expand(word, environment) for word in [*container["command"], *container.get("args", [])]]
    return Command(words, environment)


def quantity(text: str) -> float:
    """A Kubernetes quantity as a number, for the suffixes that the manifests use."""
    found = re.fullmatch(r"([\d.]+)(m|Ki|Mi|Gi)?", text)
    assert found, text
    return float(found[1]) * {None: 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[found[2]]


def expand(text: str, environment: Mapping[str, str]) -> str:
    """$(NAME) becomes the variable's value, $$ a dollar; an unknown name is left as it is.

    As in https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/.
    """
    return re.sub(
        r"\$(?:\$|\(([^)]*)\))",
        lambda found: "$" if found[1] is None else environment.get(found[1], found[0]),
        text,
    )


def _field(path: str, labels: Mapping[str, str], annotations: Mapping[str, str]) -> str:
    found = re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path)
    assert found, path
    return (labels if found[1] == "labels" else annotations)[found[2]]
