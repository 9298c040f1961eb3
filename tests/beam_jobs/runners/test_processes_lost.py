"""Processes beside Beam's that are killed, die while they are started, or are left behind."""

from __future__ import annotations

import contextlib
import filecmp
import multiprocessing
import multiprocessing.spawn
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import resource_tracker, util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from beam_jobs.runners import choosing, processes
from beam_jobs.runners.processes import Crew, crew
from canopy import machine
from canopy.cli import UserError
from tests.beam_jobs.making import Archive, within
from tests.beam_jobs.runners.test_processes import pid_after
from tests.beam_jobs.runners.test_processes import two as two
from tests.conftest import ROOT


def test_a_killed_process_is_one_sentence_for_what_it_did_and_for_what_comes_after(two: Crew) -> None:
    pid = two.outcome(two.submit(pid_after, 0))
    begun = [two.submit(pid_after, 60) for _ in range(2)]
    os.kill(pid, signal.SIGKILL)
    for future in begun:
        with pytest.raises(UserError, match=r"was killed.*lack of memory"):
            two.outcome(future)
    with pytest.raises(UserError, match="was killed"):
        two.submit(pid_after, 0)


def test_a_process_that_the_kernel_killed_for_want_of_memory_is_told_as_that(
    two: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = two.outcome(two.submit(pid_after, 0))
    monkeypatch.setattr(machine, "kills_for_memory", lambda: two.kills + 1)
    begun = two.submit(pid_after, 60)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(UserError, match="was killed by the system for lack of memory"):
        two.outcome(begun)


def start_and_use() -> None:
    started = crew(threads=0, processes=30)
    started.outcome(started.submit(int))  # where all were started before the first was missed


def test_processes_that_die_while_others_are_started_are_the_same_sentence() -> None:
    resource_tracker.ensure_running()  # with the real one
    python = multiprocessing.spawn.get_executable()
    multiprocessing.set_executable("/bin/false")
    try:
        with pytest.raises(UserError, match="was killed"):
            start_and_use()
    finally:
        multiprocessing.set_executable(python)


def test_a_pipe_that_is_closed_just_while_a_process_is_started_is_the_same_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = util.spawnv_passfds

    def with_a_number_taken_twice(path: bytes, arguments: list[bytes], passed: list[int]) -> int:
        return start(path, arguments, [*passed, passed[0]])

    monkeypatch.setattr(util, "spawnv_passfds", with_a_number_taken_twice)
    with pytest.raises(UserError, match="was killed"):
        crew(threads=0, processes=2)
    assert not multiprocessing.active_children()


def test_where_one_dies_while_others_are_started_these_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    submit, calls = Crew.submit, iter(range(3))

    def failing(self: Crew, *work: Any) -> Any:
        if next(calls) == 1:
            raise UserError("a process was killed")
        return submit(self, *work)

    monkeypatch.setattr(Crew, "submit", failing)
    with pytest.raises(UserError, match="was killed"):
        crew(threads=0, processes=3)
    assert not multiprocessing.active_children()


def test_ctrl_c_is_heard_before_all_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    submit, calls = Crew.submit, 0

    def interrupted(self: Crew, *work: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return submit(self, *work)

    monkeypatch.setattr(Crew, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        crew(threads=0, processes=5)
    assert calls == 2
    assert not multiprocessing.active_children()


FIRST_ENDS = "mkdir {0}/first && exit 1\ntrap '' TERM\nexec sleep 600"
SECOND_ENDS = "mkdir {0}/first || exit 1\ntrap '' TERM\nexec sleep 600"


@contextlib.contextmanager
def started_as(script: str, folder: Path) -> Iterator[None]:
    """New processes are a shell script in Python's place; those that are left are ended."""
    resource_tracker.ensure_running()  # with the real one
    executable = folder / "python"
    executable.write_text(f"#!/bin/sh\n{script.format(folder)}\n")
    executable.chmod(0o755)
    python = multiprocessing.spawn.get_executable()
    multiprocessing.set_executable(str(executable))
    try:
        yield
    finally:
        multiprocessing.set_executable(python)
        for left in multiprocessing.active_children():
            left.kill()


@pytest.mark.parametrize("script", [FIRST_ENDS, SECOND_ENDS], ids=["first", "second"])
def test_a_crew_that_lost_one_process_ends_though_another_does_not_end_when_told(
    script: str, tmp_path: Path
) -> None:
    said: list[str] = []

    def use() -> None:
        try:
            started = crew(threads=0, processes=2)
            try:
                started.outcome(started.submit(int))
            finally:
                started.close()
        except UserError as error:
            said.append(str(error))

    with started_as(script, tmp_path):
        thread = threading.Thread(target=use, daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
        assert "was killed" in said[0]
        assert not multiprocessing.active_children()


def test_the_pools_own_thread_prints_nothing_where_one_dies_while_others_are_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    end = processes._Process.terminate

    def slowly(process: Any) -> None:  # so that another is started meanwhile
        time.sleep(0.1)
        end(process)

    monkeypatch.setattr(processes._Process, "terminate", slowly)
    with started_as(FIRST_ENDS, tmp_path), pytest.raises(UserError, match="was killed"):
        crew(threads=0, processes=100)
    assert not raised
    assert threading.excepthook == raised.append


@pytest.mark.parametrize(
    ("pid", "exitcode"), [(1, -9), (None, None)], ids=["at work", "while it was started"]
)
def test_work_that_the_pool_forgot_when_a_process_died_is_not_waited_for(
    pid: int | None, exitcode: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    died: Any = SimpleNamespace(pid=pid, exitcode=exitcode)
    lost = Crew(ThreadPoolExecutor(1), 1, apart=True, started=[died])
    monkeypatch.setattr(processes, "LOOK_SECONDS", 0.01)
    with within(20), pytest.raises(UserError, match="was killed"):
        lost.outcome(Future())
    monkeypatch.setattr(processes, "LOOK_SECONDS", 20)
    done: Future[int] = Future()
    threading.Timer(0.1, done.set_result, [3]).start()
    assert lost.outcome(done) == 3


def test_a_crew_that_lost_a_process_ends_those_that_its_pool_would_wait_for() -> None:
    context = multiprocessing.get_context("spawn")
    dead, left = (
        context.Process(target=os._exit, args=(1,)),
        context.Process(target=time.sleep, args=(600,)),
    )
    dead.start()
    left.start()
    dead.join(20)

    class Waiting(ThreadPoolExecutor):
        def shutdown(self, *_: Any, **__: Any) -> None:
            while left.is_alive():
                time.sleep(0.01)

    try:
        with within(20):
            Crew(Waiting(1), 2, apart=True, started=[dead, left]).close()
        assert left.exitcode == -signal.SIGKILL
    finally:
        left.kill()


def test_processes_end_with_the_one_that_started_them_even_if_it_is_killed() -> None:
    code = (
        "import time\n"
        "from beam_jobs.runners.processes import crew\n"
        "from tests.beam_jobs.runners.test_processes import pid_after\n"
        "if __name__ == '__main__':\n"
        "    two = crew(1, 2)\n"
        "    print(*map(two.outcome, [two.submit(pid_after, 1) for _ in range(2)]), flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(set(pids)) == 2
        parent.kill()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)


lists_processes = pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc lists no processes here")


@lists_processes
def test_a_job_that_lost_a_process_says_so_and_ends_in_the_same_bytes_when_run_again(
    archive: Archive, tmp_path: Path
) -> None:
    archive.fill(choosing.MANY_IMAGES)
    flags = ["--images", archive.folder, "--labels", archive.labels, "--direct_num_workers", 2]

    def start(output: Path) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "beam_jobs.preprocess", *map(str, [*flags, "--output", output])]
        return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    with start(tmp_path / "out") as job:
        while len(children := working_for(job.pid)) < 2:
            assert job.poll() is None
            time.sleep(0.01)
        os.kill(children[0], signal.SIGKILL)
        _, said = job.communicate(timeout=60)
    assert job.returncode == 2, said
    *progress, sentence = said.splitlines()
    assert "was killed" in sentence
    assert all(line.startswith("converting: ") for line in progress)
    assert not (tmp_path / "out" / "dataset_info.json").exists()

    for folder in ("out", "undisturbed"):
        with start(tmp_path / folder) as job:
            assert job.wait(60) == 0
    shards = sorted(path.name for path in (tmp_path / "undisturbed").glob("*.tfrecord*"))
    assert len(shards) > 1
    assert filecmp.cmpfiles(tmp_path / "out", tmp_path / "undisturbed", shards, shallow=False)[0] == shards


def working_for(parent: int) -> list[int]:
    """The processes beside Beam's that a job has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            above = int(path.read_text().rpartition(")")[2].split()[1])
            if above == parent and b"spawn_main" in (path.parent / "cmdline").read_bytes():
                found.append(int(path.parent.name))
    return found
