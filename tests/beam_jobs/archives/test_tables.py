"""A CSV is read plain or packed; what is damaged or could be several tables is told."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import tarfile
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_jobs import storage
from beam_jobs.archives import tables
from beam_jobs.archives.methods import BZIP2, DEFLATED, LZMA, ZSTANDARD
from canopy.cli import TryAgainError, UserError
from tests.beam_jobs.gcs_server import Faulty
from tests.beam_jobs.making import zip_of, zstd

TEXT = b"image_name,tags\n" + b"".join(b"chip_%d,clear\n" % i for i in range(400))


def zipped(data: bytes, *others: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t.csv", data)
        for name in others:
            archive.writestr(name, b"?")
    return out.getvalue()


def zipped_by(method: int, data: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return zip_of(Path(folder, "t.zip"), {"t.csv": data}, method).read_bytes()


def tarred(data: bytes, *others: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in (*others[:1], "t.csv", *others[1:]):
            info = tarfile.TarInfo(name)
            info.size = len(data) if name == "t.csv" else 1
            if name.endswith("/"):
                info.type, info.size = tarfile.DIRTYPE, 0
            archive.addfile(info, io.BytesIO(data if name == "t.csv" else b"?"))
    return out.getvalue()


def read(path: Path | str) -> bytes:
    with storage.explained(str(path), "read"), tables.opened(str(path), f"--labels {path}") as plain:
        return plain.read()


@pytest.mark.parametrize(
    "data",
    [TEXT, b"", b"P", gzip.compress(TEXT), bz2.compress(TEXT), lzma.compress(TEXT), zstd(TEXT), zipped(TEXT)],
)
def test_the_first_bytes_tell_how_a_csv_is_packed(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    assert read(tmp_path / "t.csv") == (data if len(data) < 2 else TEXT)


def test_a_zip_may_hold_what_macos_puts_beside_a_file(tmp_path: Path) -> None:
    (tmp_path / "t.zip").write_bytes(zipped(TEXT, "__MACOSX/._t.csv", ".DS_Store", "folder/"))
    assert read(tmp_path / "t.zip") == TEXT


def test_of_a_zip_of_several_files_none_is_picked(tmp_path: Path) -> None:
    (tmp_path / "t.zip").write_bytes(zipped(TEXT, "u.csv"))
    with pytest.raises(
        UserError, match=r"--labels .*t\.zip is a zip of 2 files: name the CSV behind it, as in"
    ):
        read(tmp_path / "t.zip")


@pytest.mark.parametrize("name", ["t.csv", "./t.csv", "below/../t.csv"])
def test_of_a_zip_of_several_files_the_one_is_read_that_is_named_behind_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "t.zip").write_bytes(zipped(TEXT, "u.csv", "below/t.csv"))
    assert read(f"{tmp_path}/t.zip/{name}") == TEXT
    assert read(f"{tmp_path}/t.zip/below/t.csv") == b"?"


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstd])
def test_a_file_of_a_tar_is_read_as_that_of_a_zip_is(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "t.tar.gz"
    path.write_bytes(pack(tarred(TEXT, "below/")))
    assert read(path) == TEXT
    path.write_bytes(pack(tarred(TEXT, "./below/t.csv", "z.jpg", "._t.csv")))
    assert read(path / "t.csv") == TEXT
    assert read(f"{path}/below/t.csv") == b"?"
    for name, said in {
        "": "is a tar of 3 files: name the CSV behind it",
        "/u.csv": r"holds no u\.csv",
    }.items():
        with pytest.raises(UserError, match=rf"--labels .*t\.tar\.gz{name} .*{said}"):
            read(f"{path}{name}")


def test_an_archive_of_folders_alone_is_told(tmp_path: Path) -> None:
    zip_of(tmp_path / "t.zip", {"below/": b""})
    (tmp_path / "below").mkdir()
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        archive.add(tmp_path / "below", "below")
    for kind in ("zip", "tar"):
        with pytest.raises(UserError, match=rf"--labels .*t\.{kind} is not there: the {kind} holds no file$"):
            read(tmp_path / f"t.{kind}")


def test_a_disk_that_fails_within_a_zip_is_told_and_not_taken_for_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise OSError(errno.EIO, "Input/output error")
            return super().read(size)

    def opened(_: str) -> IO[bytes]:
        return Failing(zipped(TEXT))

    monkeypatch.setattr(storage, "open_read", opened)
    with pytest.raises(TryAgainError, match=rf"^cannot read {tmp_path}/t\.csv: Input/output error$"):
        read(tmp_path / "t.csv")


def test_of_two_files_of_a_name_in_a_tar_the_later_one_counts_as_when_it_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes(tarred(b"1", "t.csv"))
    with tarfile.open(tmp_path / "t.tar", "a") as archive:
        info = tarfile.TarInfo("t.csv")
        info.size = len(TEXT)
        archive.addfile(info, io.BytesIO(TEXT))
    assert read(tmp_path / "t.tar" / "t.csv") == TEXT


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (zipped(b"?", "xl/workbook.xml"), r"tags\.xlsx is a workbook: save it as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", r"tags\.xlsx is a workbook: save it as CSV"),
        (b"7z\xbc\xaf\x27\x1c", "is a 7z archive: unpack it"),
    ],
)
def test_what_is_no_csv_is_told_with_what_makes_it_one(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "tags.xlsx").write_bytes(data)
    with pytest.raises(UserError, match=f"--labels .*{said}"):
        read(tmp_path / "tags.xlsx")


@pytest.mark.parametrize("method", [DEFLATED, BZIP2, LZMA, ZSTANDARD])
def test_a_file_of_a_zip_is_read_by_whatever_method_it_is_packed(tmp_path: Path, method: int) -> None:
    for data in (b"", b"a", TEXT, TEXT * 100):
        (tmp_path / "t.zip").write_bytes(zipped_by(method, data))
        assert read(tmp_path / "t.zip" / "t.csv") == data
        with tables.opened(f"{tmp_path}/t.zip", "--labels") as plain:
            for place in (len(data), 0, len(data) // 2):
                assert plain.seek(place) == plain.tell() == place
                assert plain.read() == data[place:]


@pytest.mark.parametrize("method", [BZIP2, LZMA, ZSTANDARD])
@pytest.mark.parametrize("more", [-1, 1])
def test_a_file_of_a_zip_that_is_not_as_long_as_its_index_says_is_told(
    tmp_path: Path, method: int, more: int
) -> None:
    data = bytearray(zipped_by(method, TEXT))
    at = data.index(b"PK\1\2") + 24
    data[at : at + 4] = (len(TEXT) + more).to_bytes(4, "little")
    (tmp_path / "t.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"t\.zip is packed, and damaged: "):
        read(tmp_path / "t.zip")


@pytest.mark.parametrize("method", [BZIP2, LZMA, ZSTANDARD])
def test_a_file_of_a_zip_that_few_bytes_stand_for_is_never_held(tmp_path: Path, method: int) -> None:
    (tmp_path / "t.zip").write_bytes(zipped_by(method, bytes(30_000_000)))
    tracemalloc.start()
    try:
        with tables.opened(f"{tmp_path}/t.zip", "--labels") as plain:
            assert sum(map(len, iter(partial(plain.read, 1 << 16), b""))) == 30_000_000
        # What bzip2 looks back in is held four times, LZMA's 8 MB once.
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_file_that_a_zip_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.zip").write_bytes(zipped(TEXT))
    with pytest.raises(
        UserError, match=r"--labels .*t\.zip/x/t\.csv is not there: the zip holds no x/t\.csv"
    ):
        read(tmp_path / "t.zip" / "x" / "t.csv")


@pytest.mark.parametrize(("place", "value"), [(8, 1), (10, 99)], ids=["encrypted", "an unknown method"])
def test_a_zip_that_python_cannot_read_is_told(tmp_path: Path, place: int, value: int) -> None:
    data = bytearray(zipped(TEXT))
    data[data.index(b"PK\1\2") + place] = value
    (tmp_path / "t.zip").write_bytes(data)
    with pytest.raises(UserError, match="is encrypted, or packed in an unusual way: unpack it"):
        read(tmp_path / "t.zip")


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("t.csv.gz", gzip.compress), ("t.csv.bz2", bz2.compress), ("t.csv.xz", lzma.compress),
        ("t.csv.zst", zstd), ("t.csv.zip", zipped), ("bzip2.zip", partial(zipped_by, BZIP2)),
        ("lzma.zip", partial(zipped_by, LZMA)), ("zstd.zip", partial(zipped_by, ZSTANDARD)),
        ("t.tar.gz", lambda data: gzip.compress(tarred(data, "a.jpg"))),
    ],
)  # fmt: skip
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_told_wherever_it_is_or_changes_nothing(
    tmp_path: Path, name: str, pack: Callable[[bytes], bytes], data: st.DataObject
) -> None:
    packed = bytearray(pack(TEXT))
    at = data.draw(st.integers(6, len(packed) - 1), label="place")
    if data.draw(st.booleans(), label="cut off there"):
        del packed[at:]
    else:
        packed[at] ^= data.draw(st.integers(1, 255), label="bits")
    path = tmp_path / name / "t.csv" if ".tar" in name else tmp_path / name
    (tmp_path / name).write_bytes(packed)
    try:
        assert read(path) == TEXT
    except UserError as error:
        told = str(error)
        assert str(path) in told
        assert "\n" not in told


def test_a_packed_csv_in_a_store_is_read_there(server: Faulty) -> None:
    storage.write_bytes("gs://here/t.csv.zip", zipped(TEXT))
    storage.write_bytes("gs://here/t.csv.gz", gzip.compress(TEXT))
    storage.write_bytes("gs://here/t.tar.gz", gzip.compress(tarred(TEXT, "a.jpg")))
    assert (
        read("gs://here/t.csv.zip") == read("gs://here/t.csv.gz") == read("gs://here/t.tar.gz/t.csv") == TEXT
    )
