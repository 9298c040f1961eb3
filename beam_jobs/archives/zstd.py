"""A file packed by Zstandard, read as if it were plain, as `gzip.open` and its like read the others.

Promises: frames one behind the other are one file, as `cat` and `pzstd` leave them; one that is cut short is
an error, never a shorter file; whatever a frame says, no more than `WINDOW` and what a `PIECE` stands for are
held. Python itself reads Zstandard from 3.14 on.
"""

from __future__ import annotations

import io
from typing import IO, Any

import zstandard

MAGIC = b"\x28\xb5\x2f\xfd"  # how a frame begins
SKIPPED = b"\x50\x2a\x4d\x18"  # how a frame without content begins; pzstd puts one before each other
PIECE = 4096  # packed bytes taken at a time: four may stand for 128 KiB, so 128 MiB come of them at most
WINDOW = 1 << 27  # bytes that a frame may look back: what `zstd` takes without `--long`, too
ERRORS = (zstandard.ZstdError, EOFError)  # what reading raises for the file's own fault


def opened(packed: IO[bytes]) -> io.BufferedReader:
    """A file's plain bytes; going back in them means to unpack from the start again."""
    return io.BufferedReader(_Unpacked(packed))


class _Unpacked(io.RawIOBase):
    def __init__(self, packed: IO[bytes]) -> None:
        self._packed = packed
        self._rewind()

    def _rewind(self) -> None:
        self._packed.seek(0)
        self._frame: Any = None  # what unpacks the frame that was begun
        self._rest = b""  # packed bytes behind the last frame
        self._ready = memoryview(b"")
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._at
        elif whence != io.SEEK_SET:
            raise io.UnsupportedOperation("how long it is shows when it has been unpacked")
        if offset < self._at:
            self._rewind()
        while self._at < offset and self._fill():
            self._take(offset - self._at)
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        taken = self._take(len(view)) if self._fill() else memoryview(b"")
        view[: len(taken)] = taken
        return len(taken)

    def _take(self, most: int) -> memoryview:
        taken, self._ready = self._ready[:most], self._ready[most:]
        self._at += len(taken)
        return taken

    def _fill(self) -> bool:
        """Whether there is anything left to take; unpacks what is needed to know."""
        while not self._ready:
            piece = self._rest or self._packed.read(PIECE)
            if not piece:
                if self._frame is not None:
                    raise EOFError("Compressed file ended before the end-of-frame marker was reached")
                return False
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
            self._ready = memoryview(self._frame.decompress(piece))
            self._rest = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        return True
