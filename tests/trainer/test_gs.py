"""Training from and into buckets, by a client that may use their objects and not ask for a bucket itself."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from canopy import cli
from tests.conftest import SMALLEST
from tests.trainer.gs_proxy import TENSORFLOW, google
from tests.trainer.surviving import Run

pytestmark = pytest.mark.slow

DATA, MODEL = "gs://here/tfrecords", "gs://here/model"


@pytest.fixture(scope="module")
def store(records, tmp_path_factory):
    """The proxy, set for all processes that are started, and the records in one of its buckets."""
    folder = tmp_path_factory.mktemp("google")
    with google(folder, "here", "bare") as proxy, pytest.MonkeyPatch.context() as patch:
        for name, value in proxy.environment.items():
            patch.setenv(name, value)
        for path in records.iterdir():
            bucket("here").blob(f"tfrecords/{path.name}").upload_from_filename(path)
        yield proxy


def bucket(name: str) -> Any:
    from google.cloud import storage

    return storage.Client().bucket(name)


def names(name: str, prefix: str) -> list[str]:
    return [blob.name for blob in bucket(name).list_blobs(prefix=prefix)]


def read(name: str, path: str) -> str:
    # Not by what a list has told of it: the server's links lead past the proxy.
    return str(bucket(name).blob(path).download_as_text())


class Stored(Run):
    """A run in a bucket of its own; what its launchers say is in a local folder."""

    def lines(self) -> list[dict[str, Any]]:
        for name in names("bare", "metrics.jsonl"):
            (self.model_dir / name).write_text(read("bare", name))
        return super().lines()


def launch(command, *flags: object):
    words = ("--data", DATA, "--model_dir", MODEL, *SMALLEST, "--epochs", 1, *flags)
    return command("trainer.launch", "--local_workers", 1, "--", *words)


def sentence(done) -> str:
    """The one sentence with which a command ended, beside what its worker logged."""
    (told,) = [str(line) for line in done.stderr.splitlines() if not line.startswith("[worker ")]
    return told


@pytest.fixture(scope="module")
def trained(store, command):
    return launch(command)


def test_a_run_needs_no_right_to_the_bucket_itself(trained, store, command):
    assert trained.returncode == cli.EXIT_OK, trained.stderr
    assert f"model: {MODEL}/export" in trained.stdout
    assert TENSORFLOW not in store.refused
    found = {name.removeprefix("model/") for name in names("here", "model/")}
    steps = json.loads(read("here", "model/run.json"))["finished"]
    lines = [json.loads(line) for line in read("here", "model/metrics.jsonl").splitlines()]
    assert [line["step"] for line in lines if "validation" in line] == [steps]
    assert {f"checkpoints/step-{steps:08d}.npz", "export/saved_model.pb", "export/model.tflite"} <= found
    assert json.loads(read("here", "model/export/model.json"))["config"]["model_dir"] == MODEL
    assert any(name.startswith("logs/events") for name in found)
    assert not any("partial" in name or name.endswith(".tmp") for name in found)
    again = launch(command)
    assert (again.returncode, again.stderr) == (cli.EXIT_OK, "")
    assert f"the run is complete already, after {steps} steps" in again.stdout


def test_an_export_in_a_bucket_is_evaluated(trained, store, command):
    flags = ("--model", f"{MODEL}/export", "--data", DATA, "--output", "gs://here/report")
    done = command("trainer.evaluate", *flags)
    assert done.returncode == cli.EXIT_OK, done.stderr
    assert "report: gs://here/report/report.html" in done.stdout
    assert "</html>" in read("here", "report/report.html")


def test_sigterm_saves_in_a_bucket_and_the_next_start_repeats_no_step(store, records, tmp_path):
    # A run may have a bucket to itself: then nothing stands above its folders but the bucket.
    flags = ("--data", DATA, "--model_dir", "gs://bare", "--epochs", 4, "--checkpoint_steps", 1000)
    with Stored(records, tmp_path / "said", *flags) as run:
        launcher = run.locally(1)
        run.wait_for_step(2)
        launcher.send_signal(signal.SIGTERM)
        assert run.ends() == [cli.EXIT_TERMINATED], run.told()
        saved = run.steps()[-1]
        assert max(names("bare", "checkpoints/")) == f"checkpoints/step-{saved:08d}.npz"
        run.locally(1)
        assert run.ends() == [cli.EXIT_TERMINATED, cli.EXIT_OK], run.told()
        assert f"resuming after step {saved}" in run.told()
        assert saved < run.steps()[-1]
        assert run.steps() == list(range(1, run.steps()[-1] + 1))
        assert "cannot be written" not in run.told()
    assert TENSORFLOW not in store.refused


@pytest.mark.parametrize(
    ("flags", "denied", "named"),
    [
        (("--data", "gs://gone/tfrecords"), "", "gs://gone/tfrecords"),
        (("--model_dir", "gs://gone/model"), "", "--model_dir gs://gone/model"),
        ((), "/", DATA),
        (("--model_dir", "gs://here/denied"), "/denied", "--model_dir gs://here/denied"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_one_sentence(store, command, flags, denied, named):
    store.denied = denied
    try:
        done = launch(command, *flags)
    finally:
        store.denied = ""
    assert done.returncode == cli.EXIT_USER, done.stderr
    assert sentence(done).startswith(f"error: {named}")
