"""Plain processes beside the one that runs Beam, for work that Python's lock would hold up.

Promises: each starts in half a second, since it never imports Beam; none outlives the process that started
it, however that one ends; one that dies under its work is told in one sentence.
"""

from __future__ import annotations

import contextlib
import errno
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from canopy import children, machine
from canopy.cli import UserError

# Of a pipe to a process that is just gone: the system's, and Python's own where it has closed it already.
CLOSED = (errno.EPIPE, None)
AHEAD = 3  # pieces of work begun for each of a crew, so that none waits for what is made of their outcomes
LOOK_SECONDS = 1.0  # between looks for a process that died unnoticed

_Image = TypeVar("_Image")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Crew:
    """Who does a worker's work, side by side."""

    pool: Executor
    size: int  # threads or processes
    apart: bool  # in processes, to which everything has to be sent
    started: Sequence[BaseProcess] = ()  # the processes; they grow while the crew is new
    kills: int = field(default_factory=machine.kills_for_memory)  # before they were at work

    def submit(self, work: Callable[..., _Result], *arguments: object) -> Future[_Result]:
        """Begins `work(*arguments)`; `outcome` waits for it.

        Raises:
            UserError: a process has died.
        """
        try:
            return self.pool.submit(work, *arguments)
        except (BrokenProcessPool, ValueError) as error:
            # The latter where a new process' pipe has the number that a lost one's had just now.
            raise died(self.kills) from error
        except OSError as error:
            if error.errno not in CLOSED:
                raise
            raise died(self.kills) from error

    def pieces(
        self, images: Sequence[_Image], most: Callable[[], int], least: int
    ) -> Iterator[Sequence[_Image]]:
        """Cuts a list into what is handed over at a time.

        Args:
            images: the list.
            most: asked before each piece: how many it may hold.
            least: towards the list's end pieces grow smaller, so that all are done at about the same time;
                those hold a multiple of this.
        """
        done = 0
        while left := len(images) - done:
            size = min(left, most(), max(least, left // (2 * self.size) // least * least))
            yield images[done : done + size]
            done += size

    def outcomes(self, begun: Iterator[Future[_Result]]) -> Iterator[_Result]:
        """Outcomes in order, of which a few are in the making at a time.

        Args:
            begun: begins a piece of work, by `submit`, each time that it is asked for one.

        Raises:
            UserError: a process has died; or the work raised one.
        """
        waiting: deque[Future[_Result]] = deque()
        try:
            while True:
                waiting.extend(islice(begun, AHEAD * self.size - len(waiting)))
                if not waiting:
                    return
                yield self.outcome(waiting.popleft())
        finally:
            if not self.apart:  # processes share nothing that could be taken from under them
                wait([future for future in waiting if not future.cancel()])

    def outcome(self, future: Future[_Result]) -> _Result:
        """Waits for what `submit` began.

        Raises:
            UserError: a process has died; or the work raised one.
        """
        while not future.done():
            wait([future], LOOK_SECONDS)
            if not future.done() and self._lost_one():  # Python's pool may forget what was just submitted
                raise died(self.kills)
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise died(self.kills) from error

    def close(self) -> None:
        """Ends all of them; work that has not begun is dropped."""
        ending = threading.Thread(target=self.pool.shutdown, kwargs={"cancel_futures": True}, daemon=True)
        ending.start()
        while True:
            ended = not ending.is_alive()
            if self._lost_one():
                # Python's pool waits for all, and tells only those to end that it knew of when it missed one.
                for process in filter(BaseProcess.is_alive, self.started):
                    process.kill()
            if ended:
                return
            ending.join(LOOK_SECONDS)

    def _lost_one(self) -> bool:
        """Whether a process has died: in its work, or (it has no pid then) while it was started.

        The answer may be late: a process closes its pipes before the system counts it as ended.
        """
        return any(process.pid is None or process.exitcode for process in self.started)


def crew(threads: int, processes: int) -> Crew:
    """Starts processes, or threads where there are to be none.

    Args:
        threads: of this process.
        processes: beside this process; 0: none. Where the system cannot do that, threads take their place.

    Raises:
        UserError: a process has died while the others were started.
    """
    if not processes:
        return Crew(ThreadPoolExecutor(threads), threads, apart=False)
    context = _Recording()
    try:
        pool = ProcessPoolExecutor(processes, mp_context=context, initializer=children.settle)
    except (ImportError, OSError):  # no semaphores: a container without a /dev/shm that it may write to
        return crew(max(threads, processes), 0)
    made = Crew(pool, processes, apart=True, started=context.started)
    with _unheard():
        _start(made)
    return made


def _start(made: Crew) -> None:
    """Starts all of a crew's processes; an interrupt is heard between two of them."""
    try:
        for _ in range(made.size):
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # new processes inherit it
            try:
                made.submit(int)  # work that none is free for starts one
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
    except BaseException:
        made.close()
        raise


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Keeps the pool's own thread from printing its stack where a process dies while others are started.

    Before Python 3.12 it then goes through a table that still grows. Whoever waits finds out without it.
    """
    before = threading.excepthook

    def hook(raised: threading.ExceptHookArgs) -> None:
        if raised.exc_type is not RuntimeError:
            before(raised)

    threading.excepthook = hook
    try:
        yield
    finally:
        if threading.excepthook is hook:  # a signal's handler may have put another there
            threading.excepthook = before


class _Process(SpawnProcess):
    """Ends when it is told to: Python's pool waits for it, from 3.12 on with the lock that `submit` takes."""

    def terminate(self) -> None:
        self.kill()


class _Recording(SpawnContext):
    """Starts processes and keeps them. Not by fork: Beam's threads would leave locks behind for ever."""

    def __init__(self) -> None:
        self.started: list[BaseProcess] = []

    def Process(self, *arguments: Any, **named: Any) -> BaseProcess:  # type: ignore[override]  # noqa: N802
        process = _Process(*arguments, **named)
        self.started.append(process)
        return process


def died(kills: int) -> UserError:
    """The sentence about a process that was killed.

    Args:
        kills: `machine.kills_for_memory` before it was at work.
    """
    if machine.kills_for_memory() > kills:
        return UserError(
            "a process that worked on the images was killed by the system for lack of memory: run the same "
            "command again with more of it, or with a smaller --direct_num_workers"
        )
    return UserError(
        "a process that worked on the images was killed, most likely for lack of memory: run the same "
        "command again, with a smaller --direct_num_workers if it happens again"
    )
