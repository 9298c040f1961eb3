"""What the manifests say, run: each container's command, arguments and environment, end to end.

As local processes; and, where `CANOPY_IMAGE` names a folder that the image has been unpacked into, as
containers of it with all that the pods' specifications say of them (`containers.py`).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from canopy import cli
from tests.conftest import ROOT
from tests.k8s import containers
from tests.k8s.cluster import Cluster, Pod, changed
from tests.k8s.manifests import command_of, file_of, objects, the

SMALL = {"IMAGE_SIZE": "32", "ALPHA": "0.35", "WEIGHTS": "none", "BATCH_SIZE": "8", "EPOCHS": "1"}
NO_GPU = {"REQUIRE_GPU": "false"}
IMAGE = pytest.mark.skipif(bool(containers.missing()), reason=containers.missing() or "-")


@pytest.fixture(
    scope="module", params=["processes", pytest.param("containers", marks=[pytest.mark.slow, IMAGE])]
)
def ours(
    request: pytest.FixtureRequest, archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A cluster whose claim holds a small archive."""
    made = Cluster(tmp_path_factory.mktemp("cluster"), in_containers=request.param == "containers")
    shutil.copytree(archive, made.data / "archive")
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
    (pod,) = preprocessed.apply("preprocess", {}, uid="77-of-another-job")
    assert pod.end() == cli.EXIT_USER
    assert "holds a whole data set" in pod.said


def test_a_pod_that_replaces_one_that_was_done_ends_with_success(preprocessed: Cluster) -> None:
    (pod,) = preprocessed.apply("preprocess", {})
    assert pod.end() == cli.EXIT_OK, pod.log.read_text()
    assert "is whole already" in pod.log.read_text()


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


def test_evaluation_leaves_a_report_of_the_validation_split_to_be_fetched(
    training: Watched, preprocessed: Cluster
) -> None:
    done(preprocessed.apply("evaluate", {}))
    report = preprocessed.data / "report"
    assert (report / "report.html").read_text().startswith("<!doctype html>")
    model = json.loads((preprocessed.data / "model" / "export" / "model.json").read_text())
    found = json.loads((report / "metrics.json").read_text())
    assert found["split"] == "validation"
    assert found["fingerprint"] == model["dataset"]["fingerprint"]


def test_an_evaluation_of_a_split_that_is_not_there_ends_with_code_2_and_a_word(
    training: Watched, preprocessed: Cluster
) -> None:
    (pod,) = preprocessed.apply("evaluate", {"SPLIT": "holdout"})
    assert pod.end() == cli.EXIT_USER, pod.log.read_text()
    assert "holdout" in pod.said


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
