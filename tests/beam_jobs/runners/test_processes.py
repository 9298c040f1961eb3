"""Processes beside Beam's: started, used, fed piece by piece."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.images import EMPTY, RejectedImage
from beam_jobs.runners import processes
from beam_jobs.runners.processes import Crew, crew
from canopy.cli import UserError


@pytest.fixture
def two() -> Iterator[Crew]:
    started = crew(threads=1, processes=2)
    yield started
    started.close()


def pid_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def imported() -> list[str]:
    return [name for name in ("apache_beam", "tensorflow", "pandas") if name in sys.modules]


def refuse() -> None:
    raise RejectedImage(EMPTY, "the file is empty")


def disagree() -> None:
    raise UserError("it cannot be done")


def test_without_processes_threads_of_this_one_do_the_work() -> None:
    threads = crew(threads=2, processes=0)
    assert (threads.size, threads.apart) == (2, False)
    assert threads.outcome(threads.submit(pid_after, 0)) == os.getpid()
    threads.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


class Refusing(ThreadPoolExecutor):
    """A pool that no work gets into."""

    def __init__(self, error: Exception) -> None:
        super().__init__(1)
        self._error = error

    def submit(self, *_: Any, **__: Any) -> Any:
        raise self._error


@pytest.mark.parametrize(
    "error",
    [BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError("handle is closed"), BrokenProcessPool()],
)
def test_a_pipe_that_a_process_left_behind_tells_of_its_death(error: Exception) -> None:
    with pytest.raises(UserError, match="was killed"):
        Crew(Refusing(error), 1, apart=True).submit(int)


def test_what_else_the_system_refuses_is_not_taken_for_a_death() -> None:
    with pytest.raises(OSError, match="Too many open files"):
        Crew(Refusing(OSError(errno.EMFILE, "Too many open files")), 1, apart=True).submit(int)


@given(images=st.integers(0, 500), size=st.integers(1, 5), most=st.integers(1, 64), least=st.integers(1, 8))
def test_pieces_are_the_list_in_order_and_shrink_to_its_end(
    images: int, size: int, most: int, least: int
) -> None:
    pool = ThreadPoolExecutor(1)  # starts no thread without work
    cut = list(Crew(pool, size, apart=False).pieces(range(images), lambda: most, least))
    assert [i for piece in cut for i in piece] == list(range(images))
    lengths = [len(piece) for piece in cut]
    assert lengths == sorted(lengths, reverse=True)
    left = images
    for length in lengths:
        # None may be at work on much more than its share of what is left.
        assert length <= max(least, left / (2 * size))
        assert length == min(left, most) or length % least == 0
        assert length >= min(left, most, max(least, left // (2 * size) - least + 1))
        left -= length


def test_what_threads_are_at_is_done_before_an_error_goes_on() -> None:
    begun, release, done = threading.Event(), threading.Event(), threading.Event()

    def fail() -> None:
        assert begun.wait(20)
        threading.Timer(0.2, release.set).start()
        raise UserError("it cannot be done")

    def last() -> None:
        begun.set()
        assert release.wait(20)
        done.set()

    threads = crew(threads=2, processes=0)
    with pytest.raises(UserError, match="it cannot be done"):
        list(threads.outcomes(map(threads.submit, [fail, last])))
    assert done.is_set()
    threads.close()


def go_on_with(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def test_what_processes_are_at_holds_no_error_up(two: Crew, tmp_path: Path) -> None:
    begun = [two.submit(disagree), two.submit(go_on_with, tmp_path / "end")]
    with pytest.raises(UserError, match="it cannot be done"):
        list(two.outcomes(iter(begun)))
    assert not begun[1].done()
    (tmp_path / "end").touch()


def test_work_that_has_not_begun_when_a_crew_is_closed_is_dropped() -> None:
    begun, release = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert release.wait(20)

    threads = crew(threads=1, processes=0)
    first, second = threads.submit(hold), threads.submit(int)
    assert begun.wait(20)
    second.add_done_callback(lambda _: release.set())
    threads.close()
    assert (first.cancelled(), second.cancelled()) == (False, True)


def test_outcomes_come_in_order_and_few_are_in_the_making() -> None:
    asked: list[int] = []
    threads = crew(threads=2, processes=0)

    def begin() -> Iterator[Future[int]]:
        for i in range(50):
            asked.append(i)
            yield threads.submit(abs, -i)

    for i, outcome in enumerate(threads.outcomes(begin())):
        assert outcome == i
        assert len(asked) == min(50, i + 2 * processes.AHEAD)
    assert len(asked) == 50
    threads.close()


def test_where_the_system_has_no_semaphores_threads_take_the_processes_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(processes, "ProcessPoolExecutor", refused)
    threads = crew(threads=1, processes=2)
    assert (threads.size, threads.apart) == (2, False)
    assert threads.outcome(threads.submit(pid_after, 0)) == os.getpid()
    threads.close()


def test_processes_work_side_by_side(two: Crew) -> None:
    assert (two.size, two.apart) == (2, True)
    begun = [two.submit(pid_after, 1) for _ in range(2)]
    pids = set(map(two.outcome, begun))
    assert len({os.getpid(), *pids}) == 3
    assert pids == {process.pid for process in two.started}


def blocks_ctrl_c() -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_ctrl_c_is_for_the_process_that_started_them(two: Crew) -> None:
    assert two.outcome(two.submit(blocks_ctrl_c))
    assert not blocks_ctrl_c()


def test_a_process_does_without_what_is_slow_to_import(two: Crew) -> None:
    assert two.outcome(two.submit(imported)) == []


def test_what_the_work_raises_comes_back_whole(two: Crew) -> None:
    with pytest.raises(RejectedImage) as rejected:
        two.outcome(two.submit(refuse))
    assert (rejected.value.reason, rejected.value.detail) == (EMPTY, "the file is empty")
    with pytest.raises(UserError, match="it cannot be done"):
        two.outcome(two.submit(disagree))
