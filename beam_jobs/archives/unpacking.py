"""Packed tars: what they hold as one stream, and a plain copy of each to read images from.

Promises: the first bytes tell how a tar is packed, whatever its name; a damaged one is refused, its last
checksum looked at too, and images are never missing in silence; nothing is unpacked but the tar itself, so no
member's path becomes a path of this machine. Works alike on local files and on addresses.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, NamedTuple

from beam_jobs import storage
from beam_jobs.archives import zstd
from canopy.cli import UserError
from canopy.progress import Meter

# By a tar's first bytes, what reads it as if it were plain.
OPENERS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    zstd.MAGIC: zstd.opened,
    zstd.SKIPPED: zstd.opened,
}
START = max(map(len, OPENERS))  # bytes that tell
# What these raise for what they read.
DAMAGED = (gzip.BadGzipFile, zlib.error, lzma.LZMAError, *zstd.ERRORS)
CHUNK = 1 << 20  # bytes copied at a time
MEGABYTE = 1_000_000


def opener_of(start: bytes) -> Callable[[Any], Any] | None:
    """What reads a packed file as if it were plain, by its first `START` bytes; None for any other file."""
    return next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), None)


class Opened(NamedTuple):
    """A tar to read."""

    plain: IO[bytes]  # seekable: where it is packed, at the cost of unpacking what lies between
    is_packed: bool


@contextlib.contextmanager
def opened(path: str) -> Iterator[Opened]:
    """Opens a tar as if it were plain.

    Raises:
        UserError: it is damaged or cut short.
    """
    with storage.open_read(path) as file:
        start = file.read(START)
        file.seek(0)
        opener = opener_of(start)
        if opener is None:
            yield Opened(file, is_packed=False)
            return
        try:
            with opener(file) as plain:
                yield Opened(plain, is_packed=True)
        except DAMAGED as error:
            raise UserError(f"--images: {path} is no readable tar archive: {error}") from error


def unpack(copies: Mapping[str, str]) -> None:
    """Writes a plain copy of each packed tar, whole or not at all.

    Args:
        copies: of each packed tar, where its copy goes.

    Raises:
        UserError: a tar cannot be read or its copy not be written.
    """
    if not copies:
        return
    written = 0
    with Meter("unpacking", None, "MB") as meter:
        for path, copy in copies.items():
            storage.make_folder(storage.split(copy)[0])
            with storage.open_write(copy) as file:
                for chunk in _chunks(path):
                    file.write(chunk)
                    written += len(chunk)
                    meter.update(written // MEGABYTE)


def _chunks(path: str) -> Iterator[bytes]:
    with storage.explained(path, "read"), opened(path) as tar:
        while chunk := tar.plain.read(CHUNK):
            yield chunk
