"""Beam's own processes on this machine: how they start, and what it means for a job that one ends.

Promises: none outlives the process that started it, however that one ends; one that dies under its work ends
the job within seconds, in one sentence. Beam itself would wait for it without end, or show tracebacks.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from beam_jobs.runners import processes, sockets
from canopy import children, machine
from canopy.cli import UserError

WAITING = "run_worker"  # Beam's name for a thread that waits for a process, and raises where that fails
GRACE_SECONDS = 5.0  # for Beam to notice by itself, which it does where the process was at work already
TASKS = Path("/proc/self/task")  # where Linux tells what each thread has started
LOOK_SECONDS = 0.1  # between looks for the process that started this one; Beam tells of its end at length


class _LostError(BaseException):
    """Gets the main thread out of Beam's waiting; no `Exception`, which Beam might take for its own."""


def command() -> str:
    """What a shell runs as a worker.

    A terminal sends Ctrl-C to all, and each worker would print its stack.
    """
    return f"trap '' INT; exec {shlex.quote(sys.executable)} -m {__name__} {os.getpid()}"


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Ends the block where a worker dies; to be used in the main thread, elsewhere Beam has to notice.

    Raises:
        UserError: one has died.
    """
    kills, before = machine.kills_for_memory(), threading.excepthook
    held: list[Any] = []  # what threads raised, of which most only follows from a worker's death
    lost: list[UserError] = []
    over = threading.Event()
    mine = threading.current_thread() is threading.main_thread()

    def hook(raised: Any) -> None:
        held.append(raised)
        if getattr(raised.thread, "name", "") == WAITING and not lost and not over.is_set():
            lost.append(_sentence(str(raised.exc_value), kills))
            end_all()
            if mine:
                timer = threading.Timer(GRACE_SECONDS, poke)
                timer.daemon = True
                timer.start()

    def poke() -> None:
        if not over.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def leave(*_: object) -> None:
        if not over.is_set():
            raise _LostError

    handler = signal.signal(signal.SIGUSR1, leave) if mine else None
    threading.excepthook = hook
    try:
        try:
            yield
        finally:
            over.set()
    except (Exception, _LostError) as error:
        if lost:
            raise lost[0] from error
        raise
    finally:
        if mine:
            signal.signal(signal.SIGUSR1, handler)
        if lost:
            threading.excepthook = lambda _: None  # more of Beam's threads may yet miss it
        elif threading.excepthook is hook:
            threading.excepthook = before
            for raised in held:
                before(raised)


def _sentence(said: str, kills: int) -> UserError:
    code = int(found[0]) if (found := re.search(r"-?\d+$", said)) else 1
    if code == -signal.SIGKILL:
        return processes.died(kills)
    return UserError(f"a process that worked on the images ended with {children.told(code)}")


def end_all() -> None:
    """Ends all processes that this one has started: Beam waits for its own, which wait for it."""
    for pid, line in _started() if TASKS.exists() else _started_by_ps():
        # Python's own keeper of semaphores ends by itself, and is missed where it does not.
        if "multiprocessing.resource_tracker" not in line:
            with contextlib.suppress(OSError):  # it has ended by itself
                os.kill(pid, signal.SIGKILL)


def _started() -> Iterator[tuple[int, str]]:
    """The processes that this one has started, and their command lines."""
    for listed in TASKS.glob("*/children"):
        with contextlib.suppress(OSError):  # the thread or the process has ended by itself
            for pid in listed.read_text().split():
                yield int(pid), Path(f"/proc/{pid}/cmdline").read_text(errors="replace")


def _started_by_ps() -> Iterator[tuple[int, str]]:
    """The same on macOS, which has no such files."""
    words = ["ps", "-A", "-ww", "-o", "pid=", "-o", "ppid=", "-o", "args="]
    with contextlib.suppress(OSError):  # no ps either
        listed = subprocess.run(words, stdout=subprocess.PIPE, check=False).stdout
        for row in listed.decode(errors="replace").splitlines():
            pid, parent, *line = row.split(maxsplit=2)
            if int(parent) == os.getpid():
                yield int(pid), "".join(line)


def hush() -> None:
    """Keeps Beam's harness from printing what ends the work, which the job tells in a sentence.

    Where stderr cannot take it, as on a full disk, that would fail, and Beam wait for an answer without end.
    """
    from apache_beam.runners.worker import sdk_worker

    vars(sdk_worker)["print"] = lambda *_, **__: None


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)


def main() -> None:
    """A worker's process: Beam's, and a look for the one that started it, whose number is the argument."""
    threading.Thread(target=_end_with, args=[int(sys.argv[1])], daemon=True).start()
    from apache_beam.runners.worker import sdk_worker_main

    hush()
    with sockets.connecting():
        sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
