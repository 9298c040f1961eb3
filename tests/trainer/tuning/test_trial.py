"""A trial's processes and folder: what it says is heard, and nothing of it outlives it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from canopy import cli
from tests.conftest import ROOT
from trainer.tuning import trial
from trainer.tuning.trial import Training


@pytest.fixture
def folder(tmp_path):
    return trial.make_folder(tmp_path / "new" / "out", 7, None)


def start(folder, *flags):
    """A training that ends at once: it has no data."""
    return Training(folder, ["--local_workers", "1"], ["--data", "nowhere", *flags])


@pytest.fixture
def pretending(tmp_path, monkeypatch):
    """Makes launchers run a program instead of a training."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")

    def pretend(program):
        (tmp_path / "sitecustomize.py").write_text(
            "import json, os, signal, sys, time\n"
            f'if "trainer.launch" in sys.orig_argv:\n    exec({program!r})\n    os._exit(2)\n'
        )

    return pretend


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
    assert told.startswith("nowhere is no folder")
    assert "nowhere" in (folder / trial.LOG).read_text()


def test_an_earlier_trys_words_are_not_taken_for_this_ones(folder):
    (folder / trial.LOG).write_text("error: of long ago\n")
    with start(folder) as training:
        wait(training)
        assert "long ago" not in training.reason(cli.EXIT_USER)
        assert training.reason(-signal.SIGKILL).startswith("signal SIGKILL: ")
        assert training.reason(-63).startswith("signal 63: ")


@pytest.mark.parametrize(
    ("log", "code", "reason"),
    [
        (b"error: a peer is gone\nerror: no such chip\nlaunch: over\n", 2, "no such chip"),
        (b"step 1\n\nKilled by \xff\nlaunch: over\n\n", 75, "exit code 75: Killed by \ufffd"),
        (b"Traceback\n  KeyError: 1", -signal.SIGABRT, "signal SIGABRT: KeyError: 1"),
        (b"no such flag\n", 2, "exit code 2: no such flag"),
        (b"launch: begins\n", 1, "exit code 1"),
        (b"", 2, "exit code 2"),
    ],
)
def test_the_reason_of_a_failure_is_the_last_that_this_try_said_of_it(log, code, reason, pretending, folder):
    (folder / trial.LOG).write_bytes(earlier := b"error: of long ago\n")
    pretending(f"os.write(1, {log[:9]!r}); os.write(2, {log[9:]!r})")
    with start(folder) as training:
        wait(training)
        assert training.reason(code) == reason
    assert (folder / trial.LOG).read_bytes() == earlier + log


def test_a_trial_takes_nothing_of_its_searchs_pod_and_all_else_of_its_environment(
    pretending, folder, tmp_path, monkeypatch
):
    of_the_pod = ("CANOPY_TERMINATION_LOG", "CANOPY_RUN_ID", "TF_CONFIG")
    for name in (*of_the_pod, "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, "the search's")
    pretending(f"json.dump(dict(os.environ), open({str(tmp_path / 'seen')!r}, 'w'))")
    with start(folder) as training:
        wait(training)
    seen = json.loads((tmp_path / "seen").read_text())
    assert not seen.keys() & set(of_the_pod)
    assert seen["TF_CPP_MIN_LOG_LEVEL"] == "the search's"


@pytest.mark.parametrize(("heeds", "code"), [(True, cli.EXIT_TERMINATED), (False, -signal.SIGKILL)])
def test_a_trial_that_is_stopped_gets_the_time_to_save_and_no_more(
    heeds, code, pretending, folder, monkeypatch
):
    saves = f"signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), os._exit({cli.EXIT_TERMINATED})))"
    waits = "print('waits', flush=True)\nfor _ in range(600):\n    time.sleep(0.1)"
    pretending(f"{saves if heeds else 'signal.signal(signal.SIGTERM, signal.SIG_IGN)'}\n{waits}")
    if not heeds:
        monkeypatch.setattr(trial, "STOP_SECONDS", 0.3)
    with start(folder) as training:
        while training.poll() is None and not (folder / trial.LOG).read_bytes():
            time.sleep(0.02)
    assert training.poll() == code


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


def test_a_link_in_a_trials_folder_goes_and_what_it_leads_to_stays(folder, tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "file").write_text("x")
    (folder / "logs").symlink_to(tmp_path / "logs")
    trial.trim(folder, keep_export=True)
    assert not list(folder.iterdir())
    assert (tmp_path / "logs" / "file").exists()


def test_a_file_that_another_worker_trims_at_the_same_time_is_gone_for_both(folder, monkeypatch):
    unlink = Path.unlink

    def beaten(path, **options):
        unlink(path)
        unlink(path, **options)

    (folder / "partial").write_text("x")
    monkeypatch.setattr(Path, "unlink", beaten)
    trial.trim(folder, keep_export=False)
    assert not list(folder.iterdir())


def test_an_exports_score_is_its_f2(folder):
    (folder / "export").mkdir()
    metrics = {"precision": 0.9, "f2": 0.75, "f1": 0.8, "f2_macro": 0.6}
    (folder / "export" / "model.json").write_text(json.dumps({"metrics": metrics}))
    assert trial.exported_f2(folder) == 0.75


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
    assert "launch: stopped by SIGTERM" in (folder / trial.LOG).read_text()  # and what was trained is saved


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
