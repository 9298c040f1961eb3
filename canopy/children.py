"""Processes that a command starts beside itself.

Promises: none outlives the command, however that one ends; Ctrl-C is the command's own business; how one
ended can be told, whatever ended it; of more than memory holds, or open files allow, none is started. Imports
nothing that takes time.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import resource
import signal
import threading

from canopy import machine
from canopy.cli import UserError

# What there has to be for each byte of memory, and each open file, that processes take at least. They may
# take twice as much memory, and half of both is left for what else there is.
MEMORY_ROOM, FILES_ROOM = 4, 2
SPARE_FILES = 16  # that a command has open besides those of its processes


def check_memory(flag: str, count: int, each: int) -> None:
    """Refuses more processes than this machine's memory holds: it would stand still for minutes.

    Args:
        flag: that says how many.
        count: how many.
        each: bytes that one takes at least, besides what all share.

    Raises:
        UserError: they take more than there is.
    """
    there, needed = machine.memory(), count * each
    if needed > there:
        raise UserError(
            f"{flag} {count} takes at least {_gb(needed)} of memory, and this machine has {_gb(there)}, "
            f"for {there // each:,.0f} at most"
        )


def fitting(count: int, each: int, files: int = 0) -> int:
    """How many processes to start where nobody says how many: as many as there is ample room for.

    Args:
        count: how many could be of use, 1 at least.
        each: as for `check_memory`.
        files: as for `check_files`.
    """
    by_memory = machine.memory() / (MEMORY_ROOM * each)
    by_files = _files() / (FILES_ROOM * files) if files else math.inf
    return max(1, int(min(count, by_memory, by_files)))


def check_files(flag: str, count: int, each: int) -> None:
    """Refuses more processes than this one may have files open for.

    Args:
        flag: that says how many.
        count: how many.
        each: files that this process opens for one, pipes and sockets counted in.

    Raises:
        UserError: they are more than the limit (getrlimit(2), `RLIMIT_NOFILE`) allows.
    """
    limit, needed = _files(), count * each + SPARE_FILES
    if needed > limit:
        raise UserError(
            f"{flag} {count} takes {needed:,} open files, and a process may have {limit:,.0f} here, for "
            f"{max(0, limit - SPARE_FILES) // each:,.0f} at most: allow more with ulimit -n {needed}"
        )


def _files() -> float:
    """How many files a process may have open."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return math.inf if limit == resource.RLIM_INFINITY else limit


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"


def settle() -> None:
    """Makes a new process leave Ctrl-C, which a terminal sends to all, to its parent, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    # A pool's queues would not tell that the parent was killed, for each child holds the others' pipes open.
    threading.Thread(target=watch, daemon=True).start()


def told(code: int, kills: int | None = None) -> str:
    """How a process ended, in a few words.

    Args:
        code: its exit code as `subprocess` gives it; negative: by a signal.
        kills: `machine.kills_for_memory` before it began, where that is known.
    """
    if code >= 0:
        return f"exit code {code}"
    try:
        name = f"signal {signal.Signals(-code).name}"
    except ValueError:  # all real-time signals but the first and the last
        name = f"signal {-code}"
    return f"{name} for want of memory" if kills is not None and was_starved(code, kills) else name


def was_starved(code: int | None, kills: int) -> bool:
    """Whether the kernel killed a process for want of memory, as far as that can be told.

    Args:
        code: as for `told`; None while it runs.
        kills: `machine.kills_for_memory` before it began.
    """
    return code == -signal.SIGKILL and machine.kills_for_memory() > kills
