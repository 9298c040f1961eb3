"""How fast images are trained on, and which share of the time steps wait for their input.

Promises: each lap counts from the end of the one before.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Pace:
    """A clock for the steps of an epoch."""

    def __init__(self, images: int) -> None:
        """Begins the first lap after `images` images."""
        self._images, self._began, self._waited = images, time.monotonic(), 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While input is waited for."""
        asked = time.monotonic()
        yield
        self._waited += time.monotonic() - asked

    def lap(self, images: int) -> tuple[float, float]:
        """Ends a lap after `images` images, and begins the next.

        Returns:
            The lap's images a second, and the share of its time that was spent waiting.
        """
        now = time.monotonic()
        seconds = now - self._began
        rate, share = (images - self._images) / seconds, self._waited / seconds
        self._images, self._began, self._waited = images, now, 0.0
        return rate, share
