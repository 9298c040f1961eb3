"""Starting workers: mistakes are told before anything starts, losses are made good."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from canopy import cli
from tests.conftest import ROOT, SMALLEST
from trainer import launch

MISTAKES = [
    (["--local_workers", "-1"], [], "--local_workers"),
    (["--local_workers", "2"], ["--batch_size", "9"], "--batch_size 9"),
    (["--local_workers", "2"], ["--epochs", "0"], "--epochs"),
    (["--local_workers", "2"], ["--data", "nowhere"], "nowhere"),
    (["--local_workers", "2"], ["--weights", "nowhere.h5"], "nowhere.h5"),
    (["--local_worker", "2"], [], "--local_worker"),
    ([], [], "JOB_COMPLETION_INDEX"),
]


@pytest.mark.parametrize(("own", "task", "named"), MISTAKES)
def test_a_mistake_is_one_sentence_and_starts_nothing(
    own, task, named, records, tmp_path, capfd, monkeypatch
):
    monkeypatch.delenv("JOB_COMPLETION_INDEX", raising=False)
    flags = [*own, "--", "--data", str(records), "--model_dir", str(tmp_path / "model"), *task]
    assert launch.main(flags) == cli.EXIT_USER
    told = capfd.readouterr().err.strip()
    assert told.startswith("error: ")
    assert named in told
    assert "\n" not in told
    assert not (tmp_path / "model").exists()


def test_what_a_restart_cannot_mend_is_the_runs_exit_code():
    lost, killed = cli.EXIT_PEER_LOST, -signal.SIGKILL
    assert launch._verdict([]) == cli.EXIT_OK
    assert launch._verdict([lost, killed]) == cli.EXIT_PEER_LOST
    assert launch._verdict([lost, cli.EXIT_USER]) == cli.EXIT_USER
    assert launch._verdict([lost, cli.EXIT_BUG]) == cli.EXIT_BUG
    assert launch._verdict([killed, cli.EXIT_BUG]) == cli.EXIT_PEER_LOST


def test_a_mistake_that_every_worker_finds_is_told_once(records, tmp_path, command):
    (tmp_path / "run.json").write_text("{")
    flags = ("--data", records, "--model_dir", tmp_path, *SMALLEST)
    done = command("trainer.launch", "--local_workers", 2, "--", *flags)
    assert done.returncode == cli.EXIT_USER
    assert done.stderr.count("run.json cannot be understood") == 1
    assert "Traceback" not in done.stderr


def children(pid):
    """The training processes of a launcher."""
    words = ["ps", "-o", "pid=,args=", "--ppid", str(pid)]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    return [int(line.split()[0]) for line in found.stdout.splitlines() if "trainer.task" in line]


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.2)
    raise AssertionError("it did not happen in time")


def start(records, model_dir, *flags):
    words = [sys.executable, "-m", "trainer.launch", "--local_workers", "2", "--"]
    words += ["--data", str(records), "--model_dir", str(model_dir), *map(str, SMALLEST), *flags]
    return subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def steps_logged(model_dir):
    path = model_dir / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_killed_worker_costs_a_restart_and_not_the_run(records, tmp_path):
    model_dir = tmp_path / "model"
    run = start(records, model_dir, "--epochs", "40", "--checkpoint_steps", "3")
    wait_for(lambda: max(steps_logged(model_dir), default=0) >= 8)
    os.kill(children(run.pid)[0], signal.SIGKILL)
    _, told = run.communicate(timeout=400)
    assert run.returncode == 0, told
    assert "restart 1" in told
    assert "resuming after step" in told
    assert (model_dir / "export" / "model.json").exists()


@pytest.mark.slow
def test_sigterm_ends_every_worker(records, tmp_path):
    model_dir = tmp_path / "model"
    run = start(records, model_dir, "--epochs", "400")
    wait_for(lambda: steps_logged(model_dir))
    workers = children(run.pid)
    assert len(workers) == 2
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    assert run.returncode == cli.EXIT_TERMINATED
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
