"""How fast steps follow each other, and which share of the time they wait for their input.

Promises: each lap counts from the end of the one before.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Pace:
    """A clock for the steps of an epoch."""

    def __init__(self, step: int) -> None:
        """Begins the first lap after `step` steps."""
        self._step, self._began, self._waited = step, time.monotonic(), 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While input is waited for."""
        asked = time.monotonic()
        yield
        self._waited += time.monotonic() - asked

    def lap(self, step: int) -> tuple[float, float]:
        """Ends a lap after `step` steps, and begins the next.

        Returns:
            The lap's steps a second, and the share of its time that was spent waiting.
        """
        now = time.monotonic()
        seconds = now - self._began
        rate, share = (step - self._step) / seconds, self._waited / seconds
        self._step, self._began, self._waited = step, now, 0.0
        return rate, share
