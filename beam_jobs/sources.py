"""Where images are, in folders and in zip and tar archives, on this machine or in a store.

Promises: a `Listing` of millions is small; `Reader.read` fetches one image's bytes, from within an archive
too, once `unpack` has made plain copies of packed tars. Names from archives are never used as paths.
"""

from __future__ import annotations

import errno
import math
import os
import stat
import time
import unicodedata
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import overload

from beam_jobs import storage
from beam_jobs.archives import contents, unpacking
from beam_jobs.archives.members import MAX_BYTES, Handles, rejecting
from beam_jobs.images import UNREADABLE, RejectedImage
from canopy.contract import IMAGE_ENDINGS

ASKED = 16  # objects whose sizes a store is asked for, at most
SLOW_SECONDS = 0.001  # that an image may take to read, before others are read meanwhile
RETRY_SECONDS = 1.0  # before an image that gave an I/O error is read once more
READERS = 32  # requests to a store or a disk at a time, so that its latency hides
# Of archives' members, held for one piece of work: a megabyte of a zip may unpack to a gigabyte, dozens being
# read ahead. What is beyond it is read in its turn.
AHEAD_BYTES = 64 << 20

# An image's file, or why there is none, or what reads it.
Fetched = bytes | RejectedImage | Callable[[], bytes]


def content(fetched: Fetched) -> bytes:
    """The file; raises the `RejectedImage` where there is none."""
    if isinstance(fetched, RejectedImage):
        raise fetched
    return fetched if isinstance(fetched, bytes) else fetched()


def name_of(path: str) -> str:
    """An image's name: its file name without folder and ending.

    Both kinds of slash part folders: archives made on Windows hold backslashes.
    """
    return without_ending(path.replace("\\", "/").rpartition("/")[2])


def without_ending(name: str) -> str:
    """Drops a JPEG's ending, in any case; other dots belong to the name.

    Whether an accent is a character of its own, as macOS spells files' names, or not, as in most tables, it
    is the same name: it is given in the second form (NFC).
    """
    stem, dot, ending = name.rpartition(".")
    bare = stem if (dot + ending).lower() in IMAGE_ENDINGS else name
    return bare if bare.isascii() else unicodedata.normalize("NFC", bare)


@dataclass(frozen=True, slots=True)
class Source:
    """Where one image's bytes are."""

    container: str  # the folder or the archive
    member: str  # the file name in the folder, or the path in the archive
    entry: contents.Entry | None = None  # where in the archive; None: a file of its own
    copy: str = ""  # of a packed tar: the plain one that is read in its stead

    def __reduce__(self) -> tuple[type[Source], tuple[object, ...]]:
        """How it is pickled: a dataclass' own way takes two to four times as long, and Beam goes it often."""
        return Source, (self.container, self.member, self.entry, self.copy)

    @property
    def name(self) -> str:
        """The image's name, as in the CSV's `image_name`."""
        return name_of(self.member)

    @property
    def place(self) -> str:
        """The folder or the archive that its bytes are read from."""
        return self.copy or self.container

    @property
    def is_object(self) -> bool:
        """Whether it is a store's object, and no archive's member."""
        return self.entry is None and storage.is_remote(self.container)

    @property
    def size(self) -> int:
        """Bytes of its file, for which a store is asked; 0 where nobody knows.

        Raises:
            UserError: the store refuses every request.
            TryAgainError: the store does not answer.
        """
        if self.entry is not None:
            return self.entry.size
        try:
            return 0 if storage.is_beams(self.container) else storage.size(self.path)
        except OSError:  # reading it will say why
            return 0

    @property
    def path(self) -> str:
        """The whole path, for people and for order; of a file, its real one."""
        if not storage.is_remote(self.container):
            return storage.join(self.container, self.member)
        return f"{self.container}/{self.member}"


class Listing(Sequence[Source]):
    """Images found, in columns: millions take some 100 bytes each. Sorted by folder or archive, then name."""

    def __init__(self) -> None:
        self.containers: list[str] = []
        self.members: list[str] = []
        # Files that are no JPEG by their name, links, what is hidden, archives without a JPEG.
        self.ignored = 0
        self.copies: dict[str, str] = {}  # packed tar -> where a plain copy of it is going to be
        self._container_of = array("i")
        self._entries: list[contents.Entries | None] = []  # container -> where its members are
        self._first: list[int] = []  # container -> the position of its first image

    def add(self, container: str, members: list[str], entries: contents.Entries | None = None) -> None:
        """Appends the images of one folder or archive, in the order given."""
        number = len(self.containers)
        self.containers.append(container)
        self._first.append(len(self.members))
        self._entries.append(entries)
        self.members.extend(members)
        self._container_of.extend([number] * len(members))

    def __len__(self) -> int:
        return len(self.members)

    @overload
    def __getitem__(self, index: int) -> Source: ...
    @overload
    def __getitem__(self, index: slice) -> list[Source]: ...
    def __getitem__(self, index: int | slice) -> Source | list[Source]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        number = self._container_of[index]
        entries = self._entries[number]
        entry = None if entries is None else entries[index - self._first[number]]
        container = self.containers[number]
        return Source(container, self.members[index], entry, self.copies.get(container, ""))

    def names(self) -> Iterator[str]:
        """Each image's name, in order."""
        return map(name_of, self.members)


def sizes(sources: Sequence[Source]) -> Iterator[int]:
    """Bytes of each image's file, in order, looked up as they are asked for.

    For a store each would be a request: of a few objects, spread over all, it is asked, and the others are
    taken for as large as those are on average.
    """
    mean = None
    for source in sources:
        if not source.is_object:
            yield source.size
            continue
        if mean is None:
            some = [each for each in sources[:: math.ceil(len(sources) / ASKED)] if each.is_object]
            mean = _mean_size(some or [source])
        yield mean


def _mean_size(objects: Sequence[Source]) -> int:
    with ThreadPoolExecutor(ASKED) as pool:
        asked: list[int] = list(pool.map(lambda each: each.size, objects))
    return sum(asked) // len(asked)


def unpack(listing: Listing) -> None:
    """Writes the plain copies of packed tars, which images are read from; see `unpacking.unpack`."""
    unpacking.unpack(listing.copies)


def _read_file(path: str) -> bytes:
    """A local file's bytes; refuses a pipe, which might never end, and what no memory has room for."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # else a pipe without a writer blocks
    try:
        status = os.fstat(handle)
        size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            raise RejectedImage(UNREADABLE, "it is no regular file")
        if size > MAX_BYTES:
            raise RejectedImage(UNREADABLE, f"{size:,} bytes, over the limit of {MAX_BYTES:,}")
        return storage.read_at(handle, 0, size)
    finally:
        os.close(handle)


class Reading:
    """Images on their way."""

    def __init__(self, parts: Sequence[Future[list[Fetched]]]) -> None:
        """Takes what reads a part of them each, in order."""
        self._parts = parts

    def result(self) -> list[Fetched]:
        """Waits for all of them: in the order in which they were asked for."""
        return [each for part in self._parts for each in part.result()]


class Reader:
    """Fetches images' bytes; safe to use from several threads. Close it, or use it as a context manager."""

    def __init__(self) -> None:
        self._archives = Handles()
        self._pool = ThreadPoolExecutor(READERS)  # starts its threads as they are needed
        self._took: deque[float] = deque(maxlen=READERS)  # seconds, of the last images read ahead

    def read(self, source: Source) -> bytes:
        """One image's bytes.

        Raises:
            RejectedImage: reason UNREADABLE, with what the operating system, the store or the archive says.
            TryAgainError: it is no fault of the image, and may pass.
        """
        with rejecting():
            try:
                return self._read(source)
            except OSError as error:
                if error.errno != errno.EIO or storage.is_remote(source.place):
                    raise
            # A bad block stays one; a connection that broke is made anew, but not for what is open.
            time.sleep(RETRY_SECONDS)
            self._archives.reopen(source.place)
            with storage.explained(source.place, "read"):
                os.close(os.open(source.place, os.O_RDONLY | os.O_CLOEXEC))
            return self._read(source)

    def _read(self, source: Source) -> bytes:
        if source.entry is not None:
            return self._archives.read(source.place, source.entry)
        if (objects := storage.store(source.container)) is not None:
            return bytes(objects.read(source.path))
        if storage.is_remote(source.container):
            return storage.read_bytes(source.path)
        return _read_file(source.path)

    def begin(self, sources: Sequence[Source], room: int = AHEAD_BYTES) -> Reading:
        """Begins to read several images while the caller does something else.

        One after another, for most files take microseconds, less than to hand them to a thread; side by side
        where they take milliseconds, as on a network disk.

        Args:
            sources: the images.
            room: bytes of archives' members to read ahead; the others are left to `content`.
        """
        work = []
        for source in sources:
            size = 0 if source.entry is None else source.entry.size
            work.append((source, size <= room))
            room -= size if size <= room else 0
        parts = [[each] for each in work] if self._is_slow() else [work]
        return Reading([self._pool.submit(self._read_all, part) for part in parts])

    def _is_slow(self) -> bool:
        """Whether most of the last images took long; of a quick disk some wait, too, for Python's lock."""
        took = sorted(self._took)
        return bool(took) and took[len(took) // 4] > SLOW_SECONDS

    def _read_all(self, work: Sequence[tuple[Source, bool]]) -> list[Fetched]:
        found: list[Fetched] = []
        for source, is_ahead in work:
            if not is_ahead:
                found.append(partial(self.read, source))
                continue
            start = time.monotonic()
            try:
                found.append(self.read(source))
            except RejectedImage as reject:
                found.append(reject)
            self._took.append(time.monotonic() - start)
        return found

    def close(self) -> None:
        """Drops what nobody waited for, and closes the archives once nothing reads them."""
        self._pool.shutdown(cancel_futures=True)
        self._archives.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
