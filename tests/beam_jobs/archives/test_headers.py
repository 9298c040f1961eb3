"""Headers of a tar that take all memory, or that Python trips over: the archive is refused, a table too."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path

import pytest

from beam_jobs.archives import headers, tables
from beam_jobs.listing import list_images
from canopy.cli import UserError
from tests.beam_jobs.making import tar_of, within

LONG = 32 << 20  # of a header
AFTER_FIRST = 1024  # bytes that the member before it takes
EXTENDED = 482  # a byte of a sparse file's header: whether its list of holes goes on in another block
GOES_ON = 504  # likewise, of such a block


def header(kind: bytes, size: int = 0, extended: bool = False) -> bytes:
    """A header block of GNU tar."""
    info = tarfile.TarInfo("a.jpg")
    info.type, info.size = kind, size
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[EXTENDED] = extended
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def holes(count: int) -> bytes:
    """Blocks that go on with a sparse file's list, and none that ends it."""
    block = bytearray(b"%011o\0" % 1 * 42 + bytes(8))
    block[GOES_ON] = 1
    return bytes(block) * count


HEADERS = {
    "a name": (header(tarfile.GNUTYPE_LONGNAME, LONG) + bytes(LONG), "over 16,777,216 bytes of headers"),
    "a record": (header(tarfile.XHDTYPE, LONG) + bytes(LONG), "over 16,777,216 bytes of headers"),
    "holes": (
        header(tarfile.GNUTYPE_SPARSE, 0, True) + holes(LONG // 512),
        "over 16,777,216 bytes of headers",
    ),
    "names of names": (header(tarfile.GNUTYPE_LONGNAME) * 4_000, "too many headers for one member"),
    "holes that end": (header(tarfile.GNUTYPE_SPARSE, 0, True) + holes(1), "it is cut short within a header"),
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_tar_is_refused_for_headers_that_no_member_has(tmp_path: Path, what: str) -> None:
    path, (hostile, said) = tmp_path / "a.tar.gz", HEADERS[what]
    path.write_bytes(gzip.compress(header(tarfile.REGTYPE, 1) + b"a".ljust(512, b"\0") + hostile, 1))
    words = rf"a\.tar\.gz is no readable tar archive: {said} at byte {AFTER_FIRST:,}$"
    with within(20), pytest.raises(UserError, match=words):
        list_images([str(path)])
    refused = pytest.raises(UserError, match=f"--labels is packed, and damaged: {said}")
    with within(20), refused, tables.opened(str(path), "--labels"):
        pass


def test_the_limit_is_each_members_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = tar_of(tmp_path / "a.tar", {f"{number}.jpg": b"chip" for number in range(20)})
    monkeypatch.setattr(headers, "MAX_BYTES", 2048)
    assert len(list_images([str(path)])) == 20
