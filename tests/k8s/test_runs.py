"""What the manifests say, run: each container's command, arguments and environment as local processes.

/data and /tmp are folders here, and pods find each other at addresses of this machine; all else is the
manifest's, with settings changed in the ConfigMaps as a user would.
"""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from canopy import cli
from tests.conftest import ROOT
from tests.k8s.manifests import Object, command_of, file_of, objects, of_kind, the
from trainer import cluster

SMALL = {"IMAGE_SIZE": "32", "ALPHA": "0.35", "WEIGHTS": "none", "BATCH_SIZE": "8", "EPOCHS": "1"}
NO_GPU = {"REQUIRE_GPU": "false"}


@dataclass
class Pod:
    """A local process in the place of a pod."""

    process: subprocess.Popen[str]
    scratch: Path  # its /tmp
    log: Path
    word: Path  # its /dev/termination-log

    @property
    def is_ready(self) -> bool:
        return (self.scratch / "canopy-ready").exists()

    def end(self, seconds: float = 180) -> int:
        return self.process.wait(seconds)

    @property
    def said(self) -> str:
        """Why it ended, in its own words, and its log for a test that fails."""
        return self.word.read_text() if self.word.exists() else ""


class Cluster:
    """Starts pods of manifests on this machine."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self._folder = folder
        self.pods: list[Pod] = []

    def apply(self, stage: str, settings: dict[str, str], workers: int = 1) -> list[Pod]:
        """Starts a stage's pods, with some of its settings changed."""
        found = changed(objects(file_of(stage)), f"canopy-{stage}", settings)
        (workload,) = of_kind(found, "Job", "Deployment")
        ports = cluster.free_ports(workers)
        pods = [self._start(found, workload, index, ports) for index in range(workers)]
        self.pods += pods
        return pods

    def _start(self, found: list[Object], workload: Object, index: int, ports: list[int]) -> Pod:
        command = command_of(found, workload, index)
        scratch = self._folder / f"pod-{len(self.pods)}-{index}-{time.monotonic_ns()}"
        scratch.mkdir(parents=True)
        word, log = scratch / "termination-log", scratch / "log"
        mapped = {"/data": str(self.data), "/tmp": str(scratch), "/dev/termination-log": str(word)}
        if workload["spec"].get("completionMode") == "Indexed":
            command.environment["CANOPY_ADDRESSES"] = ",".join(f"127.0.0.1:{port}" for port in ports)
        environment = {name: localized(value, mapped) for name, value in command.environment.items()}
        words = [localized(each, mapped) for each in command.words]
        words = [each.replace("--port=6006", f"--port={ports[0]}") for each in words]
        self.port = ports[0]
        assert words[0] == "python"
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, *words[1:]],
                # Nothing of the tests' own environment but where programs are, and two threads a process.
                env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", **environment},
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
            )
        return Pod(process, scratch, log, word)

    def delete(self) -> None:
        """Ends what still runs."""
        for pod in self.pods:
            if pod.process.poll() is None:
                pod.process.kill()
                pod.process.wait()


def changed(found: list[Object], name: str, settings: dict[str, str]) -> list[Object]:
    """The objects with values of a ConfigMap changed; a setting that is not there is an error."""
    found = copy.deepcopy(found)
    data = the(found, "ConfigMap", name)["data"]
    assert settings.keys() <= data.keys()
    data.update(settings)
    return found


def localized(text: str, mapped: dict[str, str]) -> str:
    """A path of a pod as one of this machine, also behind a flag's equals sign."""
    flag, equals, value = text.rpartition("=") if text.startswith("--") else ("", "", text)
    for inside, outside in mapped.items():
        if value == inside or value.startswith(inside + "/"):
            return flag + equals + outside + value[len(inside) :]
    return text


@pytest.fixture(scope="module")
def ours(archive: Path, tmp_path_factory: pytest.TempPathFactory):
    """A cluster whose claim holds a small archive."""
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    made.data.mkdir()
    (made.data / "archive").symlink_to(archive)
    yield made
    made.delete()


def done(pods: list[Pod]) -> None:
    for pod in pods:
        assert pod.end() == cli.EXIT_OK, pod.log.read_text()


@pytest.fixture(scope="module")
def preprocessed(ours: Cluster) -> Cluster:
    done(ours.apply("preprocess", {"SPLITS": "train=0.7,validation=0.3", "MAX_BAD_FRACTION": "0.1"}))
    return ours


@dataclass(frozen=True)
class Watched:
    """The training job's pods, and what was seen of them while they ran."""

    pods: list[Pod]
    ready: set[int]  # indexes that were ready at some moment


@pytest.fixture(scope="module")
def training(preprocessed: Cluster) -> Watched:
    pods = preprocessed.apply("train", SMALL | NO_GPU | {"LOG_STEPS": "1"}, workers=2)
    ready: set[int] = set()
    while any(pod.process.poll() is None for pod in pods):
        ready |= {index for index, pod in enumerate(pods) if pod.is_ready}
        time.sleep(0.02)
    done(pods)
    return Watched(pods, ready)


def test_preprocessing_leaves_whole_records_on_the_claim(preprocessed: Cluster) -> None:
    assert (preprocessed.data / "tfrecords" / "dataset_info.json").exists()


def test_the_same_job_again_is_refused_and_kubectl_describe_says_why(
    preprocessed: Cluster,
) -> None:
    (pod,) = preprocessed.apply("preprocess", {})
    assert pod.end() == cli.EXIT_USER
    assert "holds a whole data set" in pod.said


def test_two_training_pods_become_ready_and_leave_a_model(training: Watched, preprocessed: Cluster) -> None:
    assert (preprocessed.data / "model" / "export" / "model.json").exists()
    assert training.ready == {0, 1}
    assert not any(pod.is_ready for pod in training.pods), "a pod whose process has ended trains no more"
    assert [pod.said for pod in training.pods] == ["", ""]


def test_prediction_makes_the_submission(training: Watched, preprocessed: Cluster) -> None:
    done(preprocessed.apply("predict", {"SCORES": "/data/scores.parquet"}))
    rows = (preprocessed.data / "submission.csv").read_text().splitlines()
    sample = (preprocessed.data / "archive" / "sample_submission_v2.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == [row.split(",")[0] for row in sample]
    assert (preprocessed.data / "scores.parquet").exists()


def test_an_archive_without_a_sample_submission_is_predicted_too(
    training: Watched, preprocessed: Cluster
) -> None:
    done(preprocessed.apply("predict", {"SAMPLE_SUBMISSION": "none", "OUTPUT": "/data/plain.csv"}))
    images = list((preprocessed.data / "archive" / "test-jpg").iterdir())
    assert len((preprocessed.data / "plain.csv").read_text().splitlines()) == len(images) + 1


def test_tensorboard_answers_and_ends_when_it_is_told(training: Watched, preprocessed: Cluster) -> None:
    (pod,) = preprocessed.apply("tensorboard", {})
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{preprocessed.port}/") as answer:
                assert answer.status == 200
            break
        except OSError:
            assert pod.process.poll() is None, pod.log.read_text()
            time.sleep(0.2)
    else:
        pytest.fail(pod.log.read_text())
    pod.process.send_signal(signal.SIGTERM)
    pod.end(90)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"DATA": "/data/nowhere"}, "/nowhere"),
        ({"BATCH_SIZE": "7"}, "--batch_size 7"),
        ({"EPOCHS": "many"}, "--epochs"),
        ({"RESTART": "yes"}, "--restart"),
    ],
)
def test_a_wrong_setting_ends_training_with_code_2_and_a_word(
    settings: dict[str, str], said: str, preprocessed: Cluster
) -> None:
    (first, *_) = preprocessed.apply("train", SMALL | NO_GPU | settings, workers=2)
    assert first.end(60) == cli.EXIT_USER, first.log.read_text()
    assert said in first.said


def test_an_index_beyond_the_number_of_workers_ends_with_code_2(preprocessed: Cluster) -> None:
    found = changed(objects(file_of("train")), "canopy-train", SMALL | NO_GPU)
    command = command_of(found, the(found, "Job", "canopy-train"), index=2)
    process = subprocess.run(
        [sys.executable, *(word.replace("/data", str(preprocessed.data)) for word in command.words[1:])],
        env={"PATH": os.environ["PATH"], **command.environment, "CANOPY_TERMINATION_LOG": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == cli.EXIT_USER
    assert "must be the same number" in process.stderr


@pytest.mark.slow
def test_without_a_gpu_training_says_so_instead_of_crawling(preprocessed: Cluster) -> None:
    pods = preprocessed.apply("train", SMALL | {"MODEL_DIR": "/data/gpu"}, workers=2)
    assert [pod.end() for pod in pods] == [cli.EXIT_USER] * 2
    assert "GPU" in pods[0].said


@pytest.mark.slow
def test_two_pods_share_a_search(preprocessed: Cluster) -> None:
    search = {"TRIALS": "2", "LEARNING_RATE": "1e-3..1e-2:log", "IMAGE_SIZE": "32,64"}
    settings = SMALL | NO_GPU | search
    done([pod for _ in range(2) for pod in preprocessed.apply("tune", settings)])
    assert (preprocessed.data / "tune" / "study.log").exists()
