"""The rules that infra/Dockerfile keeps: pinned, small, without root, and the same packages as everywhere."""

import fnmatch
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from canopy.cuda import LEFT_OUT
from tests.conftest import ROOT
from tests.infra.conftest import LOCKS, k8s_manifests, packages

DOCKERFILE = ROOT / "infra" / "Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
UID = "10001"


def instructions():
    """(stage, instruction, rest) in order; the stage is None before the first FROM."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    stage = None
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            if word == "FROM":
                stage = rest.rpartition(" AS ")[2]
            yield stage, word, rest.strip()


def stages():
    return {stage: rest.rpartition(" AS ")[0] for stage, word, rest in instructions() if word == "FROM"}


def lineage(target):
    """The stages that a target is built on, itself first."""
    found = [target]
    while stages().get(found[-1]) in stages():
        found.append(stages()[found[-1]])
    return found


def within(target, word):
    return [rest for stage, name, rest in instructions() if name == word and stage in lineage(target)]


def test_the_base_is_pinned_by_tag_and_digest():
    bases = {base for base in stages().values() if base not in stages()}
    assert bases == {"${BASE}", "scratch"}
    base = next(rest for _, word, rest in instructions() if word == "ARG" and rest.startswith("BASE="))
    assert re.fullmatch(r"BASE=docker\.io/library/python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", base)
    assert "latest" not in re.sub(r"#.*", "", DOCKERFILE.read_text())


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_target_runs_as_a_number_that_the_manifests_name_too(target):
    assert within(target, "USER") == [f"{UID}:{UID}"]
    for path in k8s_manifests():
        for user in re.findall(r"runAs(?:User|Group): (\d+)", path.read_text()):
            assert user == UID, path


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_target_has_no_shell_between_kubernetes_and_the_process(target):
    assert not within(target, "ENTRYPOINT")
    assert json.loads(within(target, "CMD")[-1])[:2] == ["python", "-m"]
    assert within(target, "STOPSIGNAL") == ["SIGTERM"]


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_target_runs_nothing_and_takes_only_what_other_stages_made(target):
    assert not within(target, "RUN")
    assert within(target, "COPY")
    assert all(rest.startswith("--from=") for rest in within(target, "COPY"))
    assert f"--from=packages-{target} /opt/canopy /opt/canopy" in within(target, "COPY")


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_target_has_the_packages_of_its_own_lock_and_canopy_beside_them(target):
    made = [rest for stage, word, rest in instructions() if (stage, word) == (f"packages-{target}", "RUN")]
    assert [rest.split()[-1] for rest in made] == [f"infra/locks/{target}.lock"]
    site_packages = "/opt/canopy/lib/python3.11/site-packages/"
    assert f"--from=code /code/ {site_packages}" in within(target, "COPY")


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_target_runs_its_own_python_says_at_once_what_it_does_and_finds_baked_in_weights(target):
    given = dict(pair.split("=", 1) for rest in within(target, "ENV") for pair in rest.split())
    assert given["PATH"].startswith("/opt/canopy/bin:")
    assert given["PYTHONUNBUFFERED"] == "1"
    assert given["HOME"] == "/tmp"
    assert f"--from=weights / {given['CANOPY_WEIGHTS']}/" in within(target, "COPY")


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_numpy_multiplies_by_the_thread_that_asks_in_beams_workers_too_which_import_it_first(target):
    assert any(" OPENBLAS_NUM_THREADS=1 " in rest for rest in within(target, "ENV"))


def test_a_build_without_a_target_makes_the_cpu_image():
    assert list(stages())[-1] == "cpu"


def test_the_labels_name_this_version_and_licence():
    label = " ".join(within("cpu", "LABEL"))
    assert f'image.version="{PROJECT["version"]}"' in label
    assert f'image.licenses="{PROJECT["license"]}"' in label
    for path in k8s_manifests():
        for version in re.findall(r"image: canopy:(\S+?)(?:-gpu)?\s", path.read_text()):
            assert version == PROJECT["version"], path


def allowed(path):
    """Whether the build sees a file, as .dockerignore's last rule that fits has it."""
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    seen = True
    for rule in filter(lambda rule: rule and not rule.startswith("#"), rules):
        pattern = rule.removeprefix("!")
        parents = ["/".join(path.split("/")[: n + 1]) for n in range(len(path.split("/")))]
        names = [
            part
            for whole in parents
            for part in ([whole] if "**/" not in pattern else [whole.split("/")[-1]])
        ]
        if any(fnmatch.fnmatchcase(name, pattern.removeprefix("**/")) for name in names):
            seen = rule.startswith("!")
    return seen


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("trainer/launch.py", True),
        ("canopy/demo/layout.py", True),
        ("infra/submit.py", True),
        ("infra/locks/cpu.lock", True),
        ("pyproject.toml", True),
        (".git/config", False),
        (".venv/bin/python", False),
        ("tests/conftest.py", False),
        ("build/demo/model/export/model.json", False),
        ("trainer/__pycache__/launch.cpython-311.pyc", False),
        ("infra/terraform/terraform.tfstate", False),
        ("infra/terraform/main.tf", False),
        ("k8s/train-job.yaml", False),
        (".env", False),
        ("trainer/.env", False),
    ],
)
def test_the_build_sees_what_it_needs_and_nothing_else(path, seen):
    assert allowed(path) is seen


def test_every_file_that_is_copied_is_seen_and_there():
    for _, word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from="):
            for source in rest.split()[:-1]:
                found = [str(path.relative_to(ROOT)) for path in ROOT.glob(source.rstrip("/"))]
                assert found, source
                assert all(allowed(path) for path in found), source


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_target_names_its_user_whom_no_account_does(target):
    # Beam names a job on Dataflow by it.
    assert any(" USER=canopy " in rest for rest in within(target, "ENV"))


def test_the_gpu_image_finds_the_driver_where_a_runtime_mounts_it_and_tells_no_linker():
    (environment,) = (rest for rest in within("gpu", "ENV") if "NVIDIA" in rest)
    assert "LD_LIBRARY_PATH=/usr/local/nvidia/lib64:" in environment
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in environment  # with NVML, which TensorFlow wants


def test_in_the_gpu_image_a_plain_import_of_tensorflow_finds_the_library_that_its_own_paths_leave_out():
    (environment,) = (rest for rest in within("gpu", "ENV") if "NVIDIA" in rest)
    assert environment.endswith(f"/site-packages/nvidia/{Path(LEFT_OUT).parent}")


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_an_image_has_the_locks_versions_and_nothing_for_developers(name):
    ours, everybodys = packages(LOCKS / f"{name}.lock"), packages(ROOT / "requirements.lock")
    assert len(ours) > 100
    more = {package for package in ours if package not in everybodys}
    assert all(package == "tensorflow-cpu" or package.startswith("nvidia-") for package in more), more
    assert ours | everybodys == everybodys | {package: ours[package] for package in more}
    assert not set(ours) & {"pytest", "ruff", "mypy", "hypothesis", "playwright", "kubernetes", "pip"}


def test_the_cpu_image_holds_the_same_tensorflow_without_its_gpu_kernels():
    ours, everybodys = packages(LOCKS / "cpu.lock"), packages(ROOT / "requirements.lock")
    assert ours["tensorflow-cpu"] == everybodys["tensorflow"]
    assert "tensorflow" not in ours
    assert packages(LOCKS / "gpu.lock")["tensorflow"] == everybodys["tensorflow"]


def test_the_site_packages_that_the_code_is_copied_into_are_the_bases():
    text = DOCKERFILE.read_text()
    base = set(re.findall(r"^ARG BASE=.*/python:(3\.\d+)\.", text, re.MULTILINE))
    assert set(re.findall(r"python(3\.\d+)/site-packages", text)) == base


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_target_has_the_standard_library_compiled_which_its_base_leaves_out(target):
    assert within(target, "COPY")[0] == "--from=library /library/ /"
    assert [rest for stage, word, rest in instructions() if (stage, word) == ("library", "RUN")]


# Refuses what the images leave out, then imports what their processes do.
IMPORTS = """
import importlib, sys

class Gone:
    def find_spec(self, name, path=None, target=None):
        if name in gone:
            raise ModuleNotFoundError(name, name=name)

gone = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Gone())
for name in sys.argv[2].split(","):
    importlib.import_module(name)
"""
USED = (
    "beam_jobs.preprocess,beam_jobs.predict,trainer.launch,trainer.task,trainer.evaluate,trainer.tune,infra.submit,"
    "apache_beam,apache_beam.io.gcp.gcsfilesystem,"
    "apache_beam.runners.dataflow.dataflow_runner,apache_beam.runners.portability.portable_runner,"
    "ai_edge_litert.interpreter,google.cloud.storage,optuna,tensorboard.main,tensorflow,tensorflow_hub,tf_keras"
)


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_what_an_image_leaves_out_is_not_imported_there(name):
    ours, everybodys = packages(LOCKS / f"{name}.lock"), packages(ROOT / "requirements.lock")
    overrides = (LOCKS / f"{name}.overrides").read_text()
    left_out = re.findall(r"^(\S+) ; sys_platform == 'never'$", overrides, re.MULTILINE)
    assert left_out
    assert not set(left_out) & set(ours)
    assert set(left_out) <= set(everybodys)
    files = [file for package in left_out for file in metadata.distribution(package).files or ()]
    gone = [".".join(file.parent.parts) for file in files if file.name == "__init__.py"]
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, ",".join(gone), USED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
