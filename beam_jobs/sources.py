"""Where images come from: folders, globs, zip and tar archives, on this machine or in a store.

Promises: `list_images` finds every JPEG by name without opening one, each path once, in a stable order,
counting what it passes over, by one rule for folders, stores and archives; `Reader.read` fetches one image's
bytes, from within an archive too, once `unpack` has made plain copies of packed tars. Names from archives are
never used as paths. Beam is used for addresses with `://` only.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import overload

from beam_jobs import finding, storage
from beam_jobs.archives import contents, packing, unpacking
from beam_jobs.archives.members import MAX_BYTES, Handles, rejecting
from beam_jobs.images import UNREADABLE, RejectedImage
from canopy.cli import UserError
from canopy.progress import Meter

ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif")  # of a JPEG's file name, in any case
READERS = 32  # requests to a store or a disk at a time, so that its latency hides

Fetched = bytes | RejectedImage  # an image's file, or why there is none


def content(fetched: Fetched) -> bytes:
    """The file; raises the `RejectedImage` where there is none."""
    if isinstance(fetched, RejectedImage):
        raise fetched
    return fetched


def name_of(path: str) -> str:
    """An image's name: its file name without folder and ending.

    Both kinds of slash part folders: archives made on Windows hold backslashes.
    """
    return without_ending(path.replace("\\", "/").rpartition("/")[2])


def without_ending(name: str) -> str:
    """Drops a JPEG's ending, in any case; other dots belong to the name."""
    stem, dot, ending = name.rpartition(".")
    return stem if (dot + ending).lower() in ENDINGS else name


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
    def path(self) -> str:
        """The whole path, for people and for order; of a file, its real one."""
        if self.entry is None and not storage.is_remote(self.container):
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
        self._entries: dict[int, contents.Entries] = {}  # container -> where its members are
        self._first: list[int] = []  # container -> the position of its first image

    def add(self, container: str, members: list[str], entries: contents.Entries | None = None) -> None:
        """Appends the images of one folder or archive, in the order given."""
        number = len(self.containers)
        self.containers.append(container)
        self._first.append(len(self.members))
        self.members.extend(members)
        self._container_of.extend([number] * len(members))
        if entries is not None:
            self._entries[number] = entries

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
        entries = self._entries.get(number)
        entry = None if entries is None else entries[index - self._first[number]]
        container = self.containers[number]
        return Source(container, self.members[index], entry, self.copies.get(container, ""))

    def names(self) -> Iterator[str]:
        """Each image's name, in order."""
        return map(name_of, self.members)


def list_images(
    patterns: Iterable[str], ours: Callable[[str], bool] = lambda _: False, own: str = ""
) -> Listing:
    """Lists the images of folders (with all folders below), globs, JPEG files, zip and tar archives.

    Args:
        patterns: local paths or addresses; overlapping ones count an image once.
        ours: says of a path that an earlier job wrote it: it is not even counted, or the same inputs would
            give another number the second time.
        own: the job's own folder, where `unpack` will put plain copies of packed tars.

    Returns:
        The images, sorted by folder or archive and by name: the same files give the same listing,
        whatever the order of `patterns`.

    Raises:
        UserError: one of them is missing, unreadable, packed in a way that cannot be read, or holds no
            JPEG.
    """
    with Meter("listing", None, "files") as meter:
        return _list_images(patterns, ours, own, meter)


def unpack(listing: Listing) -> None:
    """Writes the plain copies of packed tars, which images are read from; see `unpacking.unpack`."""
    unpacking.unpack(listing.copies)


def _list_images(patterns: Iterable[str], ours: Callable[[str], bool], own: str, meter: Meter) -> Listing:
    folders: dict[str, set[str]] = {}
    packed: set[str] = set()
    only_packed: dict[str, tuple[list[str], int]] = {}  # pattern -> its archives, and its other files
    listing = Listing()
    for pattern in patterns:
        images, held, others = _sort(pattern, folders, ours, meter)
        listing.ignored += others
        packed.update(held)
        if not images and not held:
            raise _no_jpeg(pattern, others)
        if not images:
            only_packed[pattern] = held, others
    empty: set[str] = set()
    for folder in sorted({*folders, *packed}):
        if folder in packed:
            found = contents.index(folder, partial(_is_wanted, folder), meter)
            if found.members:
                listing.ignored += found.others
                listing.add(folder, found.members, found.entries)
                if found.is_packed:
                    listing.copies[folder] = storage.join(own, "unpacked", f"{len(listing.copies)}.tar")
            else:
                empty.add(folder)
        else:
            listing.add(folder, sorted(folders[folder]))
    listing.ignored += len(empty)
    for pattern, (held, others) in only_packed.items():
        if empty.issuperset(held):
            raise _no_jpeg(pattern, others if held == [pattern] else others + len(held))
    return listing


def _sort(
    pattern: str, folders: dict[str, set[str]], ours: Callable[[str], bool], meter: Meter
) -> tuple[int, list[str], int]:
    """Puts the images that a pattern means into `folders`: how many, the archives, how many other files."""
    images = others = 0
    held: list[str] = []
    for path, below in finding.files(pattern, meter):
        folder, name = storage.split(path)
        if below and (finding.is_passed_over(below) or _is_single_gzip(name)):
            others += not ours(path)
            continue
        if packing.kind(path):
            held.append(path)
            continue
        packing.refuse(path)
        if not below or _is_image(name):
            folders.setdefault(folder, set()).add(name)
            images += 1
        else:
            others += not ours(path)
    return images, held, others


def _no_jpeg(pattern: str, others: int) -> UserError:
    more = f" ({others:,} other files are there)" if others else ""
    return UserError(f"--images: no JPEG in {pattern}{more}")


def _is_single_gzip(name: str) -> bool:
    """Whether it is one file in gzip such as labels.csv.gz, and no image."""
    stem, dot, ending = name.rpartition(".")
    packed = (dot + ending).lower() == ".gz"
    return packed and not stem.lower().endswith(".tar") and not _is_image(stem)


def _is_single(member: str) -> bool:
    """Whether it is one file in gzip or, by its name, in zip: within an archive no zip can be looked into."""
    stem, _, ending = member.rpartition(".")
    of_csv = ending.lower() == "zip" and stem.lower().endswith(".csv")
    return of_csv or _is_single_gzip(member)


def _is_wanted(archive: str, member: str) -> bool:
    """Whether an archive's member is an image; refuses one that may hold more, as a folder's are refused."""
    if _is_image(member):
        return True
    if not finding.is_passed_over(member) and not _is_single(member):
        packing.refuse_within(archive, member)
    return False


def _is_image(member: str) -> bool:
    """Whether a path in an archive, or a file's name, is an image's."""
    return member.lower().endswith(ENDINGS) and not finding.is_passed_over(member)


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


class Reader:
    """Fetches images' bytes; safe to use from several threads. Close it, or use it as a context manager."""

    def __init__(self) -> None:
        self._archives = Handles()
        self._pool = ThreadPoolExecutor(READERS)  # starts its threads as they are needed

    def read(self, source: Source) -> bytes:
        """One image's bytes.

        Raises:
            RejectedImage: reason UNREADABLE, with what the operating system, the store or the archive says.
        """
        with rejecting():
            if source.entry is not None:
                return self._archives.read(source.place, source.entry)
            if (objects := storage.store(source.container)) is not None:
                return bytes(objects.read(source.path))
            if storage.is_remote(source.container):
                return storage.read_bytes(source.path)
            return _read_file(source.path)

    def begin(self, sources: Sequence[Source]) -> Future[list[Fetched]]:
        """Begins to read several images, one after another, while the caller does something else."""
        return self._pool.submit(self._read_all, sources)

    def _read_all(self, sources: Sequence[Source]) -> list[Fetched]:
        found: list[Fetched] = []
        for source in sources:
            try:
                found.append(self.read(source))
            except RejectedImage as reject:
                found.append(reject)
        return found

    def close(self) -> None:
        """Drops what nobody waited for, and closes the archives once nothing reads them."""
        self._pool.shutdown(cancel_futures=True)
        self._archives.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
