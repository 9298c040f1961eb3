"""What is in a zip or a tar, and where: the index by which `members` reads it.

Promises: a member's path never becomes a path of this machine; an archive that is damaged between its members
is refused; of a packed tar the places are those in its plain copy, which `unpacking` writes.
Works alike on local files and on addresses.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
import struct
import tarfile
import zipfile
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from beam_jobs import storage
from beam_jobs.archives import methods, packing, unpacking
from beam_jobs.archives.headers import Tar
from canopy.cli import UserError
from canopy.progress import Meter

IN_TAR = -1  # stands for a tar's member where a zip's has its compression method
ENCRYPTED = -2  # likewise, for a zip's member that wants a password
SPARSE = -3  # for a tar's member that is stored without its stretches of zeros
UNLINKED = -4  # for a link whose target is not in the archive, of a hard link: not before it
# How an archive holds what cannot be read.
HOW = {ENCRYPTED: "encrypted", SPARSE: "as a sparse file", UNLINKED: "as a link to what is not there"}
MAX_LINKS = 40  # one after another, as Linux follows them
MAX_TARGET_BYTES = 4096  # of a path on Linux
BLOCK = 512  # bytes of a tar's header; an end is marked by two blocks of zeros, by some writers by one
CHUNK = 128 * BLOCK  # bytes of zeros looked through at a time; what writers add is within the first
UTF8_NAME = 0x800  # the flag of a zip's member whose name is said to be UTF-8
SAID_ELSEWHERE = 0xFFFF  # the part that a zip's member is in, where its zip64 record has the number


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a member is in its archive."""

    offset: int  # bytes: of a zip's local header, of a tar's data
    stored: int  # bytes it takes in the archive
    size: int  # bytes unpacked
    method: int  # a number of `methods`, which are zip's, or one of the above
    crc: int  # CRC-32 of the unpacked bytes, by the zip's index; 0 in a tar, which has none


# What opening an archive raises for its own fault.
DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    struct.error,
    ValueError,
    NotImplementedError,
    OverflowError,
)
MISSING = Entry(0, 0, 0, UNLINKED, 0)  # what a link leads to that leads nowhere


class Entries:
    """Entries in columns: an archive of a million members takes 36 MB."""

    def __init__(self) -> None:
        self._numbers, self._small = array("q"), array("q")

    def append(self, entry: Entry) -> None:
        """Adds one."""
        self._numbers.extend((entry.offset, entry.stored, entry.size))
        self._small.append(entry.method << 32 | entry.crc)

    def methods(self) -> Counter[int]:
        """How many there are of each method."""
        return Counter(small >> 32 for small in self._small)

    def __getitem__(self, index: int) -> Entry:
        offset, stored, size = self._numbers[3 * index : 3 * index + 3]
        return Entry(offset, stored, size, self._small[index] >> 32, self._small[index] & 0xFFFFFFFF)


@dataclass(frozen=True)
class Index:
    """What is in an archive."""

    members: list[str]  # the paths of those wanted, sorted
    entries: Entries  # where each of them is
    others: int  # files besides them
    is_packed: bool  # whether entries are places in a plain copy, which `unpacking` writes
    elsewhere: list[str]  # the paths of all that lies outside the folders asked for


def index(path: str, wanted: Callable[[str], bool], meter: Meter, folders: Collection[str] = ("",)) -> Index:
    """Lists an archive's members.

    Args:
        path: a `.zip` or a tar, packed or not, local or an address.
        wanted: says by its path in the archive whether a member is an image.
        meter: counts the members.
        folders: within the archive, as `packing.normal` has them; what lies elsewhere is named, no more.

    Raises:
        UserError: it is not an archive, a damaged one, or it or most of its images cannot be read.
    """
    with storage.explained(path, "read"):
        if not storage.is_remote(path) and Path(path).exists() and not Path(path).is_file():
            raise UserError(f"--images: {path} is no regular file, and an archive is read by its index")
        return _index(path, wanted, meter, folders)


def _index(path: str, wanted: Callable[[str], bool], meter: Meter, folders: Collection[str]) -> Index:
    entries, is_packed, elsewhere = Entries(), False, []
    try:
        if packing.kind(path) == "zip":
            with storage.open_read(path) as file:
                members = list(meter.counted(_zip_members(file)))
        else:
            with unpacking.opened(path) as (file, is_packed):
                members = list(meter.counted(_tar_members(file)))
        if "" not in folders:
            elsewhere = [name for name, _ in members if not packing.lies_in(folders, name)]
            members = [member for member in members if packing.lies_in(folders, member[0])]
        # Of members of one path the last comes first, which is what unpacking leaves of them: a name's first
        # image is taken, and the others are rejects.
        chosen = sorted((name, -number) for number, (name, _) in enumerate(members) if wanted(name))
        for _, number in chosen:
            entries.append(members[-number][1])
    except DAMAGED as error:
        if (said := error_in_reading(error)) is not None:
            raise said from None
        is_beyond = isinstance(error, OverflowError)
        words = "it gives a size or a place of 2**63 or more" if is_beyond else error
        raise UserError(f"--images: {path} is no readable {packing.kind(path)} archive: {words}") from error
    if packing.kind(path) == "zip":
        _check_methods(path, entries.methods())
    others = len(members) - len(chosen)
    return Index([name for name, _ in chosen], entries, others, is_packed, elsewhere)


def how(method: int) -> str:
    """How an archive holds a member that cannot be read, by the entry's method."""
    return HOW.get(method, f"packed by {methods.name(method)}")


def _check_methods(path: str, found: Counter[int]) -> None:
    """Refuses a zip most of whose images cannot be read: that is its maker's choice, and no image's fault.

    Most, not all: what a method does not make smaller is stored as it is.
    """
    foreign = {method for method in found if method not in methods.READABLE and method != UNLINKED}
    count = sum(found[method] for method in foreign)
    if 2 * count > found.total():
        ways = " or ".join(sorted(map(how, foreign)))
        what = f"{path}, {count:,} of whose {found.total():,} images are {ways},"
        raise packing.unreadable(path, "7z x", what=what)


def error_in_reading(error: Exception) -> OSError | None:
    """What reading itself raised: `zipfile` takes it for the archive's own fault."""
    cause = error.__context__
    # A seek to before the file's start is the archive's fault indeed.
    return cause if isinstance(cause, OSError) and cause.errno != errno.EINVAL else None


def _zip_members(file: IO[bytes]) -> Iterator[tuple[str, Entry]]:
    seen: dict[str, Entry] = {}
    links: dict[str, str] = {}
    with zipfile.ZipFile(file) as archive:
        has_links = any(map(_is_link, archive.infolist()))  # else no table, which takes as much as all names
        for info in archive.infolist():
            if info.filename.endswith("/"):  # zipfile's own is_dir raises for a name of no length
                continue
            if info.volume not in (0, SAID_ELSEWHERE):
                raise zipfile.BadZipFile(
                    "it is the last of several parts, which `zip -s 0 --out whole.zip NAME` puts together"
                )
            name = _zip_name(info)
            if _is_link(info):
                links[name] = _target(archive, info)
                continue
            method = ENCRYPTED if info.flag_bits & 1 else info.compress_type
            entry = Entry(info.header_offset, info.compress_size, info.file_size, method, info.CRC)
            if has_links:
                seen[posixpath.normpath(name)] = entry
            yield name, entry
    yield from _linked(links, seen)


def _is_link(info: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(info.external_attr >> 16) and not info.flag_bits & 1  # encrypted: no target to read


def _zip_name(info: zipfile.ZipInfo) -> str:
    """A member's path, as UTF-8 wherever it can be that: macOS and Info-ZIP write so without the flag."""
    if not info.flag_bits & UTF8_NAME:
        with contextlib.suppress(UnicodeError):
            return info.filename.encode("cp437").decode()
    return info.filename


def _target(archive: zipfile.ZipFile, link: zipfile.ZipInfo) -> str:
    """What a zip's symbolic link names, which is its content; nothing where that cannot be a path."""
    size, stored = link.file_size, link.compress_size
    if max(size, stored) > MAX_TARGET_BYTES or link.compress_type not in methods.READABLE:
        return ""
    try:
        with methods.packed_bytes(archive, link) as packed:
            target = methods.unpack(link.compress_type, packed.read(stored), size)
    except (zipfile.BadZipFile, NotImplementedError, EOFError):
        return ""
    return os.fsdecode(target) if zlib.crc32(target) == link.CRC else ""


def _tar_members(file: IO[bytes]) -> Iterator[tuple[str, Entry]]:
    seen: dict[str, Entry] = {}  # what a link may name; a hard link only what comes before it
    links: dict[str, str] = {}
    start: int | None = 0
    while start is not None:
        file.seek(start)
        with Tar(fileobj=file) as archive:
            last = start
            for info in archive:
                if info.size < 0 or archive.offset <= last:
                    raise tarfile.ReadError(f"it is damaged at byte {info.offset:,}")
                last = archive.offset
                place = posixpath.normpath(info.name)
                links.pop(info.name, None)  # of two members of a path the later one counts
                if info.isreg():
                    how = SPARSE if info.issparse() else IN_TAR
                    # A sparse file's size says nothing of what is stored, and may be beyond any column.
                    size = info.size if how == IN_TAR else 0
                    seen[place] = entry = Entry(info.offset_data, size, size, how, 0)
                    yield info.name, entry
                elif info.islnk():
                    # One link may name another.
                    seen[place] = entry = seen.get(posixpath.normpath(info.linkname), MISSING)
                    yield info.name, entry
                elif info.issym():
                    links[info.name] = info.linkname
                elif not info.isdir():
                    yield "", Entry(0, 0, 0, IN_TAR, 0)
                archive.members = []  # type: ignore[attr-defined]  # it would keep a fat object for each
            start = _after_end(file, archive.offset)
    yield from _linked(links, seen)


def _linked(links: dict[str, str], seen: dict[str, Entry]) -> Iterator[tuple[str, Entry]]:
    """Symbolic links, each with the entry that it leads to; nothing outside the archive is ever looked at.

    Args:
        links: what each names, from its own folder on, by its path.
        seen: the archive's files by their paths, normalised.
    """
    towards = {posixpath.normpath(name): target for name, target in links.items()}
    for name in links:
        place = posixpath.normpath(name)
        for _ in range(MAX_LINKS):
            if place not in towards:
                break
            place = posixpath.normpath(posixpath.join(posixpath.dirname(place), towards[place]))
        yield name, seen.get(place, MISSING)


def _after_end(file: IO[bytes], end: int) -> int | None:
    """Where the next archive of a concatenated one starts, or None at the file's end.

    `tarfile` takes for the end whatever it cannot read as a header, with all that may follow.

    Args:
        file: the archive.
        end: where `tarfile` stopped, bytes.

    Raises:
        tarfile.ReadError: no end is marked there.
    """
    file.seek(end)
    if file.read(BLOCK) != bytes(BLOCK):
        raise tarfile.ReadError(f"it is damaged or cut short at byte {end:,}")
    at = end + BLOCK
    while chunk := file.read(CHUNK):
        if rest := chunk.lstrip(b"\0"):
            at += (len(chunk) - len(rest)) // BLOCK * BLOCK
            # After a single block of zeros it is rather a header wiped out than a second archive.
            if at == end + BLOCK:
                raise tarfile.ReadError(f"it is damaged at byte {end:,}")
            return at
        at += len(chunk)
    return None
