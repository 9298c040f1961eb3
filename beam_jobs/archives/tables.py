"""A CSV as it is handed out: plain, in gzip, or by itself in a zip.

Promises: the first bytes tell which, whatever the name; of a zip that holds several files none is picked; one
that is damaged is told, and never read as a shorter table.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, cast

from beam_jobs import finding, storage
from beam_jobs.archives.contents import DEFLATED, STORED
from canopy.cli import UserError

ZIP, GZIP = b"PK\3\4", b"\x1f\x8b"  # how each begins


@contextlib.contextmanager
def opened(path: str, told: str) -> Iterator[IO[bytes]]:
    """A CSV's plain bytes.

    Args:
        path: of the file, local or an address.
        told: begins the sentences.

    Raises:
        UserError: it cannot be read, is packed and damaged, or is a zip of anything but one file.
    """
    with storage.open_read(path) as file:
        start = file.read(len(ZIP))
        file.seek(0)
        try:
            if start == ZIP:
                # Read at once, or zipfile would take what a store answers for the zip's own fault.
                with zipfile.ZipFile(io.BytesIO(file.read())) as archive, _only(archive, told) as plain:
                    yield plain
            elif start.startswith(GZIP):
                with gzip.open(file) as plain:
                    yield cast(IO[bytes], plain)
            else:
                yield file
        except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise UserError(f"{told} is packed, and damaged: {error}") from error


def _only(archive: zipfile.ZipFile, told: str) -> IO[bytes]:
    found = [
        info
        for info in archive.infolist()
        if not info.filename.endswith("/") and not finding.is_passed_over(info.filename)
    ]
    if len(found) != 1:
        raise UserError(f"{told} is a zip of {len(found)} files, and one CSV is wanted")
    if found[0].flag_bits & 1 or found[0].compress_type not in (STORED, DEFLATED):
        raise UserError(f"{told} is a zip that is encrypted, or packed in an unusual way: unpack it")
    return archive.open(found[0])
