"""An archive's members, each read by its offset.

Promises: one that is damaged, encrypted or packed in an unknown way is rejected by itself, before more than
its index says is unpacked; an archive that is gone or a store that does not answer is no image's fault, and
ends the job. Works alike on local files and on addresses.
"""

from __future__ import annotations

import contextlib
import errno
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

from beam_jobs import storage
from beam_jobs.archives import methods
from beam_jobs.archives.contents import IN_TAR, Entry, how
from beam_jobs.images import UNREADABLE, RejectedImage, check_start
from canopy.cli import TryAgainError
from canopy.transient import is_transient

HEADER_SLACK = 512  # bytes of name and extra field in a local header that are read along with it
MAX_BYTES = 1 << 30  # unpacked; a JPEG within the pixel limit is far smaller
PEEK_BYTES = 1 << 24  # unpacked: of what is larger the start is looked at first, for a bomb takes seconds
KEPT_OPEN = 64  # archives: on macOS a process may open 256 files
# Of a zip's local header: its signature, then the lengths of name and extra field.
ZIP_HEADER = struct.Struct("<4s22xHH")


@contextlib.contextmanager
def rejecting() -> Iterator[None]:
    """Turns what reading raises into a `RejectedImage` with the reason UNREADABLE.

    Not a `UserError`: an archive that is gone or a store that does not answer is no fault of the image.
    """
    try:
        yield
    except (OSError, zipfile.BadZipFile) as error:
        # One bad block is its image's loss, but a file server that is gone would be that of all.
        if isinstance(error, OSError) and error.errno != errno.EIO and is_transient(error):
            raise TryAgainError(f"an image cannot be read: {error}") from error
        text = getattr(error, "strerror", None) or str(error)
        raise RejectedImage(UNREADABLE, text) from error


class Handles:
    """Open archives, the first `KEPT_OPEN` once for all reads; by offset, from several threads at once."""

    def __init__(self) -> None:
        self._files: dict[str, IO[bytes]] = {}
        self._dropped: list[IO[bytes]] = []  # others may just be reading from them
        self._lock = threading.Lock()

    def read(self, archive: str, entry: Entry) -> bytes:
        """A member's unpacked bytes, checked against the archive's checksum where it has one."""
        if (size := max(entry.size, entry.stored)) > MAX_BYTES:
            raise RejectedImage(UNREADABLE, f"{size:,} bytes, over the limit of {MAX_BYTES:,}")
        if entry.method == IN_TAR:
            return self._range(archive, entry.offset, entry.stored)
        if entry.method not in methods.READABLE:
            raise RejectedImage(UNREADABLE, f"the archive holds it {how(entry.method)}")
        # One read for header and data: in a store each costs a round trip.
        fixed = ZIP_HEADER.size
        part = self._range(archive, entry.offset, fixed + HEADER_SLACK + entry.stored, at_least=fixed)
        signature, name_length, extra_length = ZIP_HEADER.unpack(part[:fixed])
        if signature != b"PK\x03\x04":
            raise RejectedImage(UNREADABLE, "the archive's index points to something else")
        start = fixed + name_length + extra_length
        packed = part[start : start + entry.stored]
        if len(packed) < entry.stored:
            packed = self._range(archive, entry.offset + start, entry.stored)
        data = packed
        if entry.method != methods.STORED:
            if entry.size > PEEK_BYTES:
                check_start(methods.unpack(entry.method, packed, 4))
            data = methods.unpack(entry.method, packed, entry.size)
        if len(data) != entry.size or zlib.crc32(data) != entry.crc:
            raise RejectedImage(UNREADABLE, "its bytes do not fit the archive's checksum")
        return data

    def _range(self, archive: str, start: int, length: int, at_least: int | None = None) -> bytes:
        if storage.is_remote(archive):
            data = storage.read_range(archive, start, length)
        else:
            with self._open(archive) as file:
                data = storage.read_at(file.fileno(), start, length)
        if len(data) < (length if at_least is None else at_least):
            raise RejectedImage(
                UNREADABLE, f"the archive ends within it, {len(data):,} bytes after its start"
            )
        return data

    def _open(self, archive: str) -> contextlib.AbstractContextManager[IO[bytes]]:
        """An archive for one read: one that is kept open stays so after it."""
        with self._lock:
            if archive not in self._files and len(self._files) < KEPT_OPEN:
                self._files[archive] = storage.open_read(archive)
            if archive in self._files:
                return contextlib.nullcontext(self._files[archive])
        return storage.open_read(archive)

    def reopen(self, archive: str) -> None:
        """Lets an archive be opened anew for the next read."""
        with self._lock:
            if archive in self._files:
                self._dropped.append(self._files.pop(archive))

    def close(self) -> None:
        """Closes all of them."""
        with self._lock:
            for file in (*self._files.values(), *self._dropped):
                with contextlib.suppress(OSError):  # the disk is gone: whatever is wrong was told in reading
                    file.close()
            self._files.clear()
            self._dropped.clear()
