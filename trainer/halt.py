"""A request to end that comes by signal or by the clock, and is looked at where it is safe to end.

Promises: nothing is torn in the middle: SIGTERM, Ctrl-C and the time limit only note that they came, and of
two signals the first counts. A command that was started with them blocked gets them all the same.
"""

from __future__ import annotations

import math
import signal
import time
from types import FrameType
from typing import Any

from canopy import cli

CODES = {signal.SIGTERM: cli.EXIT_TERMINATED, signal.SIGINT: cli.EXIT_INTERRUPTED}
STEP_SECONDS = 0.1  # a signal is noticed this soon


class Halt:
    """Whether to end. Use as a context manager in the main thread."""

    def __init__(self, timeout: float = 0.0) -> None:
        """Starts the clock.

        Args:
            timeout: seconds from now on; 0: no limit.
        """
        self._deadline = time.monotonic() + timeout if timeout else math.inf
        self._before: dict[signal.Signals, Any] = {}
        self.code = 0  # the exit code that the signal asks for; 0 while none came

    def __enter__(self) -> Halt:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CODES)  # a blocked signal is inherited
        self._before = {number: signal.signal(number, self._note) for number in CODES}
        return self

    def _note(self, number: int, _: FrameType | None) -> None:
        self.code = self.code or CODES[signal.Signals(number)]

    @property
    def asked(self) -> bool:
        """Whether it is time to end."""
        return bool(self.code) or time.monotonic() >= self._deadline

    def wait(self, seconds: float) -> None:
        """Waits, or less where it is time to end."""
        until = time.monotonic() + seconds
        while not self.asked and time.monotonic() < until:
            time.sleep(min(STEP_SECONDS, seconds))

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
