"""Whether the shards are the ones that preprocessing wrote: size and checksum, as canopy.json has them.

Promises: a local shard that is missing or of another size is refused before anything starts; one whose
checksum differs, or that is written over while the run reads it, ends the run before the epoch is over. The
workers share the shards, and checksums are taken beside the start and the first steps, so that nobody waits
for them; a shard that this machine has checked is not read again while it stays the same file. Of objects in
gs:// the bucket itself knows both.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import google_crc32c

from canopy import own, shared_disk
from canopy.cli import UserError
from canopy.transient import told
from trainer import faults
from trainer.shard import Shard

log = logging.getLogger("canopy")
_READ_BYTES = 1 << 20


def check_sizes(shards: Sequence[Shard]) -> None:
    """Looks at the local shards' sizes; milliseconds for thousands of them.

    Raises:
        UserError: one is missing or has another size; names the record where it is cut off or corrupt.
    """
    for shard in shards:
        if "://" in shard.path:
            continue
        try:
            size = _size(shard)
        except OSError as error:
            raise told(
                f"{shard.path} is missing ({error.strerror}): canopy.json promises {shard.records} "
                "records in it",
                error,
            ) from error
        if shard.bytes not in (-1, size):
            raise UserError(_differs(shard, f"has {size} bytes, and canopy.json says {shard.bytes}"))


def _size(shard: Shard) -> int:
    """A local shard's bytes; it is read to its end where its size is not the one promised.

    An NFS client remembers for up to a minute the size of a file that another machine has replaced since.
    """
    path = Path(shard.path)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        shared_disk.look_for(path)
        size = path.stat().st_size
    if shard.bytes in (-1, size):
        return size
    with path.open("rb", buffering=0) as file:
        return sum(map(len, iter(lambda: file.read(_READ_BYTES), b"")))


class Verification:
    """One worker's share of the checksums, taken in a thread beside the training."""

    def __init__(self, shards: Sequence[Shard], workers: int, index: int) -> None:
        """Begins.

        Args:
            shards: of all splits that the run reads.
            workers: how many share them.
            index: this one, from 0; the first looks after what lies in gs://.
        """
        local = [shard for shard in shards if "://" not in shard.path]
        self._own = [shard for shard in local[index::workers] if shard.crc32c]
        self._objects = [s for s in shards if s.path.startswith("gs://") and s.crc32c] if not index else []
        self._known = _Known()
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._verify, name="verification", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Tells of what has been found so far; waits for nothing.

        Raises:
            UserError: where a shard differs or cannot be read.
            TryAgainError: where one cannot be read for a reason that may pass.
        """
        if self._fault is not None:
            raise self._fault

    def finish(self) -> None:
        """Waits until all of this worker's shards are checked, also those that were written over meanwhile.

        Raises:
            UserError, TryAgainError: as `check` does.
        """
        self._thread.join()
        if self._fault is None:
            self._verify()
        self.check()

    def _verify(self) -> None:
        try:
            if found := self._first_local() or self._first_object():
                self._fault = UserError(found)
        except Exception as error:  # a thread's exception would go unseen
            self._fault = error

    def _first_local(self) -> str | None:
        for shard in self._own:
            try:
                file = self._known.line(shard)  # before it is read: it may be written over meanwhile
                if self._known.holds(file):
                    continue
                found = checksum(shard.path)
                if found != shard.crc32c:
                    return _differs(shard, f"has CRC-32C {found}, and canopy.json says {shard.crc32c}")
                self._known.add(file)
            except OSError as error:
                raise told(f"{shard.path} cannot be read ({error.strerror or error})", error) from error
        return None

    def _first_object(self) -> str | None:
        """What the bucket says of its objects, a thousand of them a request."""
        if not self._objects:
            return None
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from google.cloud import storage

        folder = self._objects[0].path.removeprefix("gs://").rpartition("/")[0]
        bucket, _, prefix = f"{folder}/".partition("/")  # of the bucket's root there is no prefix
        try:
            blobs = storage.Client().list_blobs(
                bucket, prefix=prefix, delimiter="/", fields="items(name,size,crc32c),nextPageToken"
            )
            found = {f"gs://{bucket}/{blob.name}": (blob.size, _hexadecimal(blob.crc32c)) for blob in blobs}
        except (GoogleAPIError, GoogleAuthError, OSError) as error:
            log.warning(
                "the checksums of gs://%s/%s cannot be asked for (%s): those of the records alone count",
                *(bucket, prefix, error),
            )
            self._objects = []  # it is told once
            return None
        for shard in self._objects:
            if shard.path not in found:
                return f"{shard.path} is missing: canopy.json promises {shard.records} records in it"
            size, crc = found[shard.path]
            if shard.bytes not in (-1, size):
                return f"{shard.path} has {size} bytes, and canopy.json says {shard.bytes}"
            if crc not in ("", shard.crc32c):
                return f"{shard.path} has CRC-32C {crc}, and canopy.json says {shard.crc32c}"
        return None


def checksum(path: str) -> str:
    """The CRC-32C of a local file, eight hexadecimal digits. Some 2 GB/s on one core where the disk can."""
    crc = 0
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        while data := file.read(_READ_BYTES):
            crc = google_crc32c.extend(crc, data)
    return f"{crc:08x}"


def _differs(shard: Shard, how: str) -> str:
    """Says how a shard differs, and at which record where its framing tells."""
    return faults.first([shard], 0) or (
        f"{shard.path} {how}: its records are sound, but not those that preprocessing wrote"
    )


def _hexadecimal(crc32c: str | None) -> str:
    """The bucket's form is base64 of the big-endian bytes (cloud.google.com/storage/docs/json_api)."""
    return base64.b64decode(crc32c).hex() if crc32c else ""


class _Known:
    """The shards that were checked, with size and time of change, also by earlier starts on this machine.

    In a folder of the user's own under the temporary one; without it every start checks anew.
    """

    def __init__(self) -> None:
        self._lines: set[str] = set()
        self._path: Path | None = None
        if (folder := own.folder()) is None:
            return
        with contextlib.suppress(OSError, ValueError):
            self._path = folder / "verified.txt"
            self._lines = set(self._path.read_text(encoding="utf-8").splitlines())

    def holds(self, line: str) -> bool:
        """Whether this very file was checked."""
        return line in self._lines

    def add(self, line: str) -> None:
        """Notes that a file was checked."""
        self._lines.add(line)
        if self._path is not None:
            with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")

    @staticmethod
    def line(shard: Shard) -> str:
        """What stands for the file that a shard is now."""
        path = Path(shard.path).resolve()
        status = path.stat()
        return f"{path} {status.st_size} {status.st_mtime_ns} {status.st_ino} {shard.crc32c}"
