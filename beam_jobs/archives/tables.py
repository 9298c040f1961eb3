"""A CSV as it is handed out: plain, in gzip, or in a zip.

Promises: the first bytes tell which, whatever the name; of several files in a zip none is read that is not
named; one that is damaged is told, and never read as a shorter table.
"""

from __future__ import annotations

import contextlib
import gzip
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, cast

from beam_jobs import finding, storage
from beam_jobs.archives import packing
from beam_jobs.archives.contents import DAMAGED, DEFLATED, STORED, error_in_reading
from canopy.cli import UserError

ZIP = b"PK\3\4"  # how a zip begins that holds a file


@contextlib.contextmanager
def opened(path: str, told: str) -> Iterator[IO[bytes]]:
    """A CSV's plain bytes.

    Args:
        path: of the file, local or an address; `archive.zip/tags.csv` names one of several in a zip.
        told: begins the sentences.

    Raises:
        UserError: it cannot be read, is packed and damaged, or is not there in a zip, or one of several.
    """
    archive, member = packing.split(path)
    if packing.kind(archive) == "zip":
        path = archive
    with storage.open_read(path) as file, contextlib.ExitStack() as held:
        try:
            plain = held.enter_context(_plain(file, member, told))
        except DAMAGED as error:
            raise _damaged(error, told) from error
        try:
            yield plain
        except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise _damaged(error, told) from error


def _damaged(error: Exception, told: str) -> Exception:
    return error_in_reading(error) or UserError(f"{told} is packed, and damaged: {error}")


def _plain(file: IO[bytes], member: str, told: str) -> IO[bytes]:
    start = file.read(len(ZIP))
    file.seek(0)
    if start == ZIP:
        return _only(zipfile.ZipFile(file), member, told)
    return cast(IO[bytes], gzip.open(file)) if start.startswith(packing.GZIP) else file


def _only(archive: zipfile.ZipFile, member: str, told: str) -> IO[bytes]:
    """The file that is named in a zip, or else the only one."""
    files = [info for info in archive.infolist() if not info.filename.endswith("/")]
    if member:
        found = [info for info in files if packing.normal(info.filename) == member]
        if not found:
            raise UserError(f"{told} is not there: the zip holds no {member}")
    else:
        found = [info for info in files if not finding.is_passed_over(info.filename)]
        if len(found) != 1:
            raise UserError(
                f"{told} is a zip of {len(found)} files: name the CSV behind it, as in archive.zip/tags.csv"
            )
    if found[0].flag_bits & 1 or found[0].compress_type not in (STORED, DEFLATED):
        raise UserError(f"{told} is a zip that is encrypted, or packed in an unusual way: unpack it")
    return archive.open(found[0])
