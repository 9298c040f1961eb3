"""Zstandard's files read as plain ones do; none is shorter than what was packed."""

from __future__ import annotations

import io
import shutil
import subprocess
import tracemalloc
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.archives import zstd
from tests.beam_jobs.making import zstd as packed

PIECES = st.lists(st.binary(max_size=3000) | st.integers(0, 200_000).map(bytes), max_size=4)
SKIPPED = zstd.SKIPPED + (4).to_bytes(4, "little") + b"\0\1\2\3"


@given(PIECES, st.booleans())
def test_frames_one_behind_the_other_are_one_file(pieces: list[bytes], skipped: bool) -> None:
    whole = b"".join((SKIPPED if skipped else b"") + packed(piece) for piece in pieces)
    assert zstd.opened(io.BytesIO(whole)).read() == b"".join(pieces)


@given(PIECES, st.lists(st.tuples(st.integers(0, 300_000), st.integers(0, 20_000)), max_size=8))
def test_it_is_read_from_any_place_as_the_plain_file_is(
    pieces: list[bytes], places: list[tuple[int, int]]
) -> None:
    plain = io.BytesIO(b"".join(pieces))
    read = zstd.opened(io.BytesIO(b"".join(map(packed, pieces))))
    for place, count in places:
        assert read.seek(min(place, len(plain.getvalue()))) == plain.seek(min(place, len(plain.getvalue())))
        assert read.read(count) == plain.read(count)
        assert read.tell() == plain.tell()


@given(st.binary(min_size=1, max_size=3000), st.data())
def test_one_that_is_cut_short_is_told(data: bytes, drawn: st.DataObject) -> None:
    whole = packed(data)
    cut = drawn.draw(st.integers(1, len(whole) - 1))
    with pytest.raises(EOFError, match="ended before"):
        zstd.opened(io.BytesIO(whole[:cut])).read()


def test_a_place_behind_the_end_is_the_end() -> None:
    read = zstd.opened(io.BytesIO(packed(b"abc")))
    assert read.seek(10) == 3
    assert read.read() == b""
    with pytest.raises(io.UnsupportedOperation, match="counted from the start"):
        read.seek(0, io.SEEK_END)


def test_nothing_is_unpacked_twice_on_the_way_forward() -> None:
    class Noted(io.BytesIO):
        starts = 0

        def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
            self.starts += 1
            return super().seek(offset, whence)

    file = Noted(packed(bytes(1_000_000)))
    read = zstd.opened(file)
    for place in range(0, 1_000_000, 50_000):
        assert read.seek(place) == place
        assert read.read(10) == bytes(10)
    assert file.starts == 1


def test_half_a_gigabyte_that_a_few_kilobytes_stand_for_is_never_held() -> None:
    compressor = zstandard.ZstdCompressor().compressobj()
    bomb = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(512)) + compressor.flush()
    tracemalloc.start()
    read, count = zstd.opened(io.BytesIO(bomb)), 0
    while chunk := read.read(1 << 20):
        count += len(chunk)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 1 << 29
    assert most < 300 << 20


def test_a_frame_that_looks_back_farther_than_memory_allows_is_refused() -> None:
    far = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    frame = zstandard.ZstdCompressor(compression_params=far).compressobj()
    with pytest.raises(zstandard.ZstdError, match="too much memory"):
        zstd.opened(io.BytesIO(frame.compress(b"abc") + frame.flush())).read()


@pytest.mark.skipif(not shutil.which("zstd"), reason="zstd is not there to be tried")
def test_what_zstd_itself_has_packed_is_read(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(bytes(range(256)) * 5000)
    subprocess.run(["zstd", "-q", "-T2", "-19", "plain"], cwd=tmp_path, check=True)
    assert zstd.opened((tmp_path / "plain.zst").open("rb")).read() == bytes(range(256)) * 5000
