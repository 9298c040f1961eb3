"""Processes that a command starts beside itself.

Promises: none outlives the command, however that one ends; Ctrl-C is the command's own business; how one
ended can be told, whatever ended it. Imports nothing that takes time.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


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


def told(code: int) -> str:
    """How a process ended, in two or three words.

    Args:
        code: its exit code as `subprocess` gives it; negative: by a signal.
    """
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:  # all real-time signals but the first and the last
        return f"signal {-code}"
