"""Plain bytes out of packed ones, for readers that look at a file's start and go back to it.

Promises: going forward unpacks what lies between, going back unpacks from the start again; nothing is kept.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from typing import Any


class Unpacked(io.RawIOBase):
    """A stream of what `_next` unpacks."""

    def __init__(self) -> None:
        self._at = 0  # plain bytes given out
        self._rewind()

    @abstractmethod
    def _rewind(self) -> None:
        """Makes the first byte the next one; `_at` is 0."""

    @abstractmethod
    def _next(self, most: int) -> bytes | memoryview:
        """The bytes that come next, at most so many, which is one or more; none at the end alone."""

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is, at the cost of unpacking again."""
        return True

    def tell(self) -> int:
        """How many bytes lie before the next one."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Goes to a byte, counted from the first one, or to the end where that comes before it."""
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("places are counted from the start")
        if offset < self._at:
            self._at = 0
            self._rewind()
        while self._at < offset and self._take(min(offset - self._at, io.DEFAULT_BUFFER_SIZE)):
            pass
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer as far as one piece goes; 0 at the end alone."""
        view = memoryview(buffer).cast("B")
        taken = self._take(len(view))
        view[: len(taken)] = taken
        return len(taken)

    def _take(self, most: int) -> bytes | memoryview:
        taken = self._next(most)
        self._at += len(taken)
        return taken
