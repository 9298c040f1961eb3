"""Beam's own processes: one that dies ends the job in one sentence, and none outlives what started it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from beam_jobs import records
from beam_jobs.runners import workers
from canopy import machine
from canopy.cli import UserError
from tests.beam_jobs.making import Archive, Run, within
from tests.conftest import ROOT

MANY = ["--direct_running_mode", "multi_processing", "--direct_num_workers", "2"]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # put back


def end_one(words: str) -> None:
    def fail() -> None:
        raise RuntimeError(words)

    thread = threading.Thread(target=fail, name=workers.WAITING)
    thread.start()
    thread.join()


def lose_one(then: Callable[[], object], words: str = "Worker subprocess exited with return code -9") -> None:
    with workers.watched():
        end_one(words)
        then()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("kill -9 $$", "was killed, most likely for lack of memory"),
        ("exit 3", "ended with exit code 3"),
    ],
)
def test_a_worker_that_dies_before_it_is_at_work_ends_the_job_in_one_sentence(
    archive: Archive, run: Run, monkeypatch: pytest.MonkeyPatch, how: str, said: str
) -> None:
    monkeypatch.setattr(workers, "command", lambda: how)
    with within(20):
        done = run(archive.fill(3), *MANY)
    assert done.code == 2
    *progress, sentence = done.err.splitlines()
    assert f"error: a process that worked on the images {said}" in sentence
    assert all(line.startswith("converting: ") for line in progress)


def test_what_the_kernel_killed_for_want_of_memory_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    kills = iter([2, 3])
    monkeypatch.setattr(machine, "kills_for_memory", lambda: next(kills))
    with within(20), pytest.raises(UserError, match="was killed by the system for lack of memory"):
        lose_one(lambda: threading.Event().wait())


def test_where_one_worker_dies_the_others_are_ended_whom_beam_would_wait_for() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        with pytest.raises(UserError, match="was killed"):
            lose_one([].pop)
        assert other.wait(20) == -signal.SIGKILL


def test_outside_the_main_thread_beam_is_left_to_notice() -> None:
    interrupted, done = list[int](), threading.Event()

    def work() -> None:
        lose_one(lambda: time.sleep(0.3))
        done.set()

    before = signal.signal(signal.SIGUSR1, lambda number, _: interrupted.append(number))
    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (interrupted, done.is_set()) == ([], True)


def test_beams_own_word_of_a_worker_that_died_is_not_told(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="signal SIGSEGV"):
        lose_one([].pop, "Worker subprocess exited with return code -11")
    assert not capfd.readouterr().err


def test_work_that_was_done_when_a_worker_died_is_done() -> None:
    handler = signal.getsignal(signal.SIGUSR1)
    with workers.watched():
        end_one("Worker subprocess exited with return code -9")
    time.sleep(0.2)
    assert signal.getsignal(signal.SIGUSR1) is handler


def test_what_other_threads_raise_is_told_when_no_worker_died(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda raised: told.append(str(raised.exc_value)))
    hook = threading.excepthook
    with workers.watched():
        thread = threading.Thread(target=[].pop)
        thread.start()
        thread.join()
    assert told == ["pop from empty list"]
    assert threading.excepthook is hook


@pytest.mark.parametrize("tasks", [str(workers.TASKS), "/nowhere"], ids=["as the system tells", "as ps does"])
def test_whoever_ends_all_processes_ends_its_own_and_no_other(tasks: str) -> None:
    program = (
        "import subprocess, threading\nfrom pathlib import Path\nfrom beam_jobs.runners import workers\n"
        f"workers.TASKS = Path({tasks!r})\n"
        "started = []\ndef start(): started.append(subprocess.Popen(['sleep', '60']))\n"
        "start()\nother = threading.Thread(target=start)\nother.start()\nother.join()\n"
        "workers.end_all()\nprint([each.wait(20) for each in started])\n"
    )
    with subprocess.Popen(["sleep", "60"]) as bystander:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, "[-9, -9]\n"), done.stderr
        assert bystander.poll() is None
        bystander.kill()


def test_a_worker_ends_with_the_process_that_started_it() -> None:
    # What Beam would do in the worker is left out.
    worker = (
        "import sys, time, types\n"
        "from beam_jobs.runners import workers\n"
        "idle = types.SimpleNamespace()\n"
        "idle.main = lambda _: (print(*vars(idle), flush=True), time.sleep(600))\n"
        "harness = types.SimpleNamespace(sdk_worker_main=idle, sdk_worker=idle)\n"
        "sys.modules['apache_beam.runners.worker'] = harness\n"
        "workers.main()\n"
    )
    parent = (
        "import os, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {worker!r}, str(os.getpid())])\n"
        "print(child.pid, flush=True)\nchild.wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        words = [started.stdout.readline().strip() for _ in range(2)]
        pid = next(int(word) for word in words if word.isdigit())
        assert "main print" in words  # what Beam would print is kept from it
        started.kill()
    with within(20):
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.05)


def test_a_failure_in_beams_threads_is_not_printed_but_told(
    archive: Archive, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(records.ChecksummedWriter, "write", full)
    done = run(archive.fill(3), "--direct_running_mode", "multi_threading", "--direct_num_workers", "2")
    assert done.code == 2
    assert "No space left on device" in done.err
    assert "Traceback" not in done.err


def test_a_worker_knows_which_process_started_it_and_leaves_ctrl_c_to_it() -> None:
    assert workers.command().endswith(f" -m beam_jobs.runners.workers {os.getpid()}")
    assert workers.command().startswith("trap '' INT; exec ")
