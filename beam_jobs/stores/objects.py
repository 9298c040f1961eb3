"""What every object store has in common: addresses, reading here and there, glob patterns.

Promises: pure but for the reader that is handed in; nothing here knows which store it is.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import IO, Any

from canopy.cli import TryAgainError, UserError

TRY_SECONDS = 300.0  # for one request with all its repetitions
CONNECTIONS = 64  # at least the readers of one process
CHUNK_BYTES = 4 << 20  # of a large object that is read here and there

ReadRange = Callable[[int, int], bytes]  # start and length to at most so many bytes


class UnavailableError(TryAgainError):
    """The store did not answer in all that time: a reason to fail, not to skip an image."""


def parts(path: str) -> tuple[str, str]:
    """Bucket and object name of an address such as gs://bucket/folder/name.

    Raises:
        UserError: it names no bucket.
    """
    bucket, _, name = path.partition("://")[2].partition("/")
    if not bucket:
        raise UserError(f"{path} names no bucket")
    return bucket, name


def reader(size: int, read: ReadRange) -> IO[bytes]:
    """A seekable reader of an object of `size` bytes that fetches parts of it with `read`."""
    return io.BufferedReader(_Ranges(size, read), CHUNK_BYTES)


class _Ranges(io.RawIOBase):
    """An object as a raw file, each read a request of its own."""

    def __init__(self, size: int, read: ReadRange) -> None:
        super().__init__()
        self._size, self._read, self._at = size, read, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), max(self._size - self._at, 0))
        data = self._read(self._at, length)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def words(error: BaseException) -> str:
    """The beginning of what an error says, on one line."""
    return " ".join(str(error).split())[:200]


def fixed_part(pattern: str) -> str:
    """What every name that a glob matches begins with; `[*]`, `[?]` and `[[]` stand for one character."""
    fixed = re.match(r"(\[[*?\[]\]|[^*?\[])*", pattern, re.DOTALL)
    return re.sub(r"\[([*?\[])\]", r"\1", fixed.group() if fixed else "")


def expression(pattern: str) -> re.Pattern[str]:
    """A glob as a regular expression: `*` and `?` within a folder, `**` across folders.

    Raises:
        ValueError: it is no glob.
    """
    result = ""
    for part in re.findall(r"\*\*|\*|\?|\[[^\]]+\]|.", pattern, re.DOTALL):
        if part == "**":
            result += ".*"
        elif part in ("*", "?"):
            result += "[^/]*" if part == "*" else "[^/]"
        elif len(part) > 1:
            inner = re.sub(r"[\\\[&~|^]", r"\\\g<0>", part[1:-1])
            result += "[" + inner.replace("!", "^", part[1] == "!") + "]"
        else:
            result += re.escape(part)
    try:
        return re.compile(result, re.DOTALL)
    except re.error as error:
        raise ValueError(error.msg) from error
