"""A file packed by Zstandard, read as if it were plain, as `gzip.open` and its like read the others.

Promises: frames one behind the other are one file, as `cat` and `pzstd` leave them; one that is cut short is
an error, never a shorter file; whatever a frame says, no more than `WINDOW` and what a `PIECE` stands for are
held. Python itself reads Zstandard from 3.14 on.
"""

from __future__ import annotations

import io
from typing import IO, Any

import zstandard

from beam_jobs.archives import streams

MAGIC = b"\x28\xb5\x2f\xfd"  # how a frame begins
SKIPPED = b"\x50\x2a\x4d\x18"  # how a frame without content begins; pzstd puts one before each other
PIECE = 4096  # packed bytes taken at a time: four may stand for 128 KiB, so 128 MiB come of them at most
WINDOW = 1 << 27  # bytes that a frame may look back: what `zstd` takes without `--long`, too
ERRORS = (zstandard.ZstdError, EOFError)  # what reading raises for the file's own fault


def opened(packed: IO[bytes]) -> io.BufferedReader:
    """A file's plain bytes; going back in them means to unpack from the start again."""
    return io.BufferedReader(_Unpacked(packed))


class _Unpacked(streams.Unpacked):
    def __init__(self, packed: IO[bytes]) -> None:
        self._packed = packed
        super().__init__()

    def _rewind(self) -> None:
        self._packed.seek(0)
        self._frame: Any = None  # what unpacks the frame that was begun
        self._rest = b""  # packed bytes behind the last frame
        self._ready = memoryview(b"")

    def _next(self, most: int) -> memoryview:
        self._fill()
        taken, self._ready = self._ready[:most], self._ready[most:]
        return taken

    def _fill(self) -> None:
        """Unpacks until there is something to take, or the end is reached."""
        while not self._ready:
            piece = self._rest or self._packed.read(PIECE)
            if not piece:
                if self._frame is not None:
                    raise EOFError("Compressed file ended before the end-of-frame marker was reached")
                return
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
            self._ready = memoryview(self._frame.decompress(piece))
            self._rest = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
