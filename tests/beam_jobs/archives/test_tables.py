"""A CSV is read plain or packed; what is damaged or could be several tables is told."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_jobs import storage
from beam_jobs.archives import tables
from canopy.cli import UserError
from tests.beam_jobs.gcs_server import Faulty

TEXT = b"image_name,tags\n" + b"".join(b"chip_%d,clear\n" % i for i in range(400))


def zipped(data: bytes, *others: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t.csv", data)
        for name in others:
            archive.writestr(name, b"?")
    return out.getvalue()


def read(path: Path | str) -> bytes:
    with storage.explained(str(path), "read"), tables.opened(str(path), f"--labels {path}") as plain:
        return plain.read()


@pytest.mark.parametrize("data", [TEXT, b"", b"P", gzip.compress(TEXT), zipped(TEXT)])
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


@pytest.mark.parametrize("pack", [gzip.compress, zipped], ids=["gzip", "zip"])
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_damage_is_told_wherever_it_is_or_changes_nothing(
    tmp_path: Path, pack: Callable[[bytes], bytes], data: st.DataObject
) -> None:
    packed = bytearray(pack(TEXT))
    at = data.draw(st.integers(4, len(packed) - 1), label="place")
    if data.draw(st.booleans(), label="cut off there"):
        del packed[at:]
    else:
        packed[at] ^= data.draw(st.integers(1, 255), label="bits")
    (tmp_path / "t.csv").write_bytes(packed)
    try:
        assert read(tmp_path / "t.csv") == TEXT
    except UserError as error:
        told = str(error)
        assert f"{tmp_path}/t.csv" in told
        assert "\n" not in told


def test_a_packed_csv_in_a_store_is_read_there(server: Faulty) -> None:
    storage.write_bytes("gs://here/t.csv.zip", zipped(TEXT))
    storage.write_bytes("gs://here/t.csv.gz", gzip.compress(TEXT))
    assert read("gs://here/t.csv.zip") == read("gs://here/t.csv.gz") == TEXT
