"""A trial's processes and folder: what it says is heard, and nothing of it outlives it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from canopy import cli
from tests.conftest import ROOT
from trainer.tuning import trial
from trainer.tuning.trial import Training


@pytest.fixture
def folder(tmp_path):
    return trial.make_folder(tmp_path / "out", 7, None)


def start(folder, *flags):
    """A training that ends at once: it has no data."""
    return Training(folder, ["--local_workers", "1"], ["--data", "nowhere", *flags])


def wait(training, seconds=60):
    deadline = time.monotonic() + seconds
    while training.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return training.poll()


def test_a_failed_training_says_why_in_its_own_words(folder):
    with start(folder) as training:
        assert wait(training) == cli.EXIT_USER
        told = training.reason(cli.EXIT_USER)
    assert told.startswith("nowhere holds no dataset_info.json")
    assert "nowhere" in (folder / trial.LOG).read_text()


def test_an_earlier_trys_words_are_not_taken_for_this_ones(folder):
    (folder / trial.LOG).write_text("error: of long ago\n")
    with start(folder) as training:
        wait(training)
        assert "long ago" not in training.reason(cli.EXIT_USER)
        assert training.reason(-signal.SIGKILL).startswith("signal SIGKILL: ")
        assert training.reason(-63).startswith("signal 63: ")


def test_epochs_are_told_once_and_half_a_line_is_waited_for(folder):
    path = folder / "metrics.jsonl"
    first = {"step": 4, "epoch": 1, "validation": {"f2": 0.5}}
    with start(folder) as training:
        assert training.epochs() == []
        path.write_text(json.dumps({"step": 2, "epoch": 1, "loss": 0.7}) + "\n" + json.dumps(first)[:20])
        assert training.epochs() == []
        path.write_text(json.dumps({"step": 2, "epoch": 1, "loss": 0.7}) + "\n" + json.dumps(first) + "\n")
        assert training.epochs() == [(1, 0.5)]
        with path.open("a") as file:
            again, second = json.dumps(first), json.dumps({**first, "epoch": 2})
            file.write(f"{again}\nno json\n{second}\n")
        assert training.epochs() == [(2, 0.5)]


def test_a_retry_takes_over_the_folder_of_the_trial_that_it_continues(folder):
    (folder / "run.json").write_text("{}")
    retry = trial.make_folder(folder.parent, 9, 7)
    assert (retry / "run.json").exists()
    assert not folder.exists()
    assert trial.make_folder(folder.parent, 12, 10).is_dir()  # the worker of 10 died before it made a folder
    with pytest.raises(FileExistsError):
        trial.make_folder(folder.parent, 12, None)


@pytest.mark.parametrize("keep_export", [True, False])
def test_a_trial_is_trimmed_to_what_it_was_and_scored(keep_export, folder):
    for name in ("export", "checkpoints", "logs"):
        (folder / name).mkdir()
        (folder / name / "file").write_text("x")
    for name in ("metrics.jsonl", "run.json", "log.txt", "partial"):
        (folder / name).write_text("{}")
    for _ in range(2):  # another worker may have been faster
        trial.trim(folder, keep_export)
    left = {path.name for path in folder.iterdir()}
    assert left == {"metrics.jsonl", "run.json", "log.txt"} | ({"export"} if keep_export else set())
    trial.trim(folder.parent / "nowhere", keep_export)


@pytest.mark.parametrize("text", ["", "{}", '{"metrics": {"f2": NaN}}', '{"metrics": {"f2": null}}', "[1]"])
def test_an_export_without_a_score_has_none(text, folder):
    (folder / "export").mkdir()
    assert trial.exported_f2(folder) is None
    (folder / "export" / "model.json").write_text(text)
    assert trial.exported_f2(folder) is None


SEARCH = """
import sys, time
from pathlib import Path
from trainer.tuning.trial import Training
with Training(Path(sys.argv[1]), ["--local_workers", "1"], sys.argv[2:]) as training:
    print(training._process.pid, flush=True)
    while training.poll() is None:
        time.sleep(0.1)
"""


def session(leader):
    """The living processes of a session."""
    words = ["ps", "-o", "pid=,stat=", "--sid", str(leader)]
    found = subprocess.run(words, capture_output=True, text=True, check=False).stdout.split("\n")
    return [line for line in found if line.strip() and " Z" not in line]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not tell a parent's end")
def test_processes_end_with_a_search_that_is_killed(records, folder):
    flags = ["--data", str(records), "--image_size", "32", "--weights", "none", "--epochs", "1000"]
    words = [sys.executable, "-c", SEARCH, str(folder), *flags]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as search:
        assert search.stdout is not None
        leader = int(search.stdout.readline())
        deadline = time.monotonic() + 60
        while len(session(leader)) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(session(leader)) >= 2  # the launcher and its worker
        os.kill(search.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while session(leader) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert session(leader) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a session's processes are found with ps")
def test_workers_whose_launcher_was_killed_do_not_outlive_the_trial(records, folder):
    flags = ["--data", str(records), "--image_size", "32", "--weights", "none", "--epochs", "1000"]
    with Training(folder, ["--local_workers", "1"], flags) as training:
        leader = training._process.pid
        deadline = time.monotonic() + 60
        while len(session(leader)) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(leader, signal.SIGKILL)
        assert wait(training) == -signal.SIGKILL
    assert session(leader) == []
