"""A CSV as it is handed out: plain, packed by itself, or in a zip or a tar.

Promises: the first bytes tell how it is packed, whatever the name, of a tar its name; of several files in an
archive none is read that is not named; one that is damaged is told, and never read as a shorter table.
"""

from __future__ import annotations

import contextlib
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TypeVar, cast

from beam_jobs import finding, storage
from beam_jobs.archives import contents, methods, packing, unpacking
from beam_jobs.archives.contents import error_in_reading
from beam_jobs.archives.headers import Tar
from canopy.cli import UserError

ZIP = b"PK\3\4"  # how one begins
# How others begin that are handed out as tables, and what to do with them.
FOREIGN = {
    b"\xd0\xcf\x11\xe0": "a workbook: save it as CSV",
    b"7z\xbc\xaf": "a 7z archive: unpack it with `7z x`",
}
WORKBOOK = "xl/workbook.xml"  # what a zip holds that is called .xlsx

# What reading one raises for its own fault; on opening, the archive's too.
BROKEN_WITHIN = (zipfile.BadZipFile, tarfile.TarError, *unpacking.DAMAGED)
BROKEN = (*BROKEN_WITHIN, *contents.DAMAGED)

T = TypeVar("T")


@contextlib.contextmanager
def opened(path: str, told: str) -> Iterator[IO[bytes]]:
    """A CSV's plain bytes.

    Args:
        path: of the file, local or an address; `archive.zip/tags.csv` names one of several in a zip or a tar.
        told: begins the sentences.

    Raises:
        UserError: it cannot be read, is packed and damaged, or is not there in an archive, or one of several.
    """
    archive, member = packing.split(path)
    kind = packing.kind(archive)
    with storage.open_read(archive) as file, contextlib.ExitStack() as held:
        try:
            plain = held.enter_context(_plain(file, member, told, kind == "tar", held))
        except BROKEN as error:
            raise _damaged(error, told) from error
        try:
            yield plain
        except BROKEN_WITHIN as error:
            raise _damaged(error, told) from error


def _damaged(error: Exception, told: str) -> Exception:
    return error_in_reading(error) or UserError(f"{told} is packed, and damaged: {error}")


def _plain(file: IO[bytes], member: str, told: str, is_tar: bool, held: contextlib.ExitStack) -> IO[bytes]:
    start = file.read(unpacking.START)
    file.seek(0)
    if start.startswith(ZIP):
        return _of_zip(zipfile.ZipFile(file), member, told)
    if (what := next((FOREIGN[magic] for magic in FOREIGN if start.startswith(magic)), None)) is not None:
        raise UserError(f"{told} is {what}")
    opener = unpacking.opener_of(start)
    plain = file if opener is None else cast(IO[bytes], held.enter_context(opener(file)))
    if not is_tar:
        return plain
    archive = held.enter_context(Tar(fileobj=plain))
    found = _only(_files(archive), lambda info: info.name, member, told, "tar")
    # A packed one's last checksum is behind all that a tar's reader looks at.
    while plain.read(unpacking.CHUNK):
        pass
    return cast(IO[bytes], archive.extractfile(found))  # None is for what is no regular file


def _of_zip(archive: zipfile.ZipFile, member: str, told: str) -> IO[bytes]:
    files = [info for info in archive.infolist() if not info.filename.endswith("/")]
    if any(info.filename == WORKBOOK for info in files):
        raise UserError(f"{told} is a workbook: save it as CSV")
    found = _only(files, lambda info: info.filename, member, told, "zip")
    if found.flag_bits & 1 or found.compress_type not in methods.READABLE:
        raise UserError(f"{told} is a zip that is encrypted, or packed in an unusual way: unpack it")
    return methods.opened(archive, found)


def _files(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for info in archive:
        archive.members = []  # type: ignore[attr-defined]  # it would keep a fat object for each
        if info.isreg():
            yield info


def _only(files: Iterable[T], name_of: Callable[[T], str], member: str, told: str, kind: str) -> T:
    """The file that is named in an archive, the last of that name, or else the only one."""
    found, count = None, 0
    for each in files:
        name = name_of(each)
        if packing.normal(name) == member if member else not finding.is_passed_over(name):
            found, count = each, count + 1
    if found is None:
        raise UserError(f"{told} is not there: the {kind} holds no {member or 'file'}")
    if count > 1 and not member:
        raise UserError(
            f"{told} is a {kind} of {count:,} files: name the CSV behind it, as in archive.{kind}/tags.csv"
        )
    return found
