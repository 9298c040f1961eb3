"""Members of archives: read whole, or rejected one by one."""

from __future__ import annotations

import os
import resource
import zipfile
from pathlib import Path

import pytest

from beam_jobs.images import UNREADABLE, RejectedImage
from beam_jobs.sources import Reader, list_images
from tests.beam_jobs.making import pack, tar_of, zip_of


def test_a_damaged_member_is_rejected_by_itself(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a.jpg": b"A" * 100, "b.jpg": b"B" * 100}, zipfile.ZIP_STORED)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"A" * 100, b"A" * 99 + b"?"))
    with Reader() as reader:
        first, second = list_images([str(path)])
        with pytest.raises(RejectedImage, match="checksum") as caught:
            reader.read(first)
        assert caught.value.reason == UNREADABLE
        assert reader.read(second) == b"B" * 100


def test_a_zip_bomb_is_rejected_before_it_bursts(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a.jpg": b"\0" * 5_000_000, "b.jpg": b"b"})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = (100).to_bytes(4, "little")  # the index says 100 bytes
    path.write_bytes(data)
    with Reader() as reader, pytest.raises(RejectedImage, match="checksum"):
        reader.read(list_images([str(path)])[0])


def test_a_member_packed_in_a_way_unknown_here_is_rejected(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a.jpg": b"A" * 100}, zipfile.ZIP_LZMA)
    with Reader() as reader, pytest.raises(RejectedImage, match="method 14"):
        reader.read(list_images([str(path)])[0])


@pytest.mark.parametrize("kind", ["file", "zip", "tar"])
def test_what_the_system_gives_in_parts_is_read_whole(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pread, data = os.pread, bytes(range(256)) * 10
    if kind == "file":
        (tmp_path / "a.jpg").write_bytes(data)
    else:
        pack(tmp_path / f"a.{kind}", {"a.jpg": data})
    monkeypatch.setattr(os, "pread", lambda handle, size, start: pread(handle, min(size, 100), start))
    with Reader() as reader:
        assert reader.read(list_images([str(tmp_path)])[0]) == data


def test_more_archives_are_read_at_once_than_a_process_may_have_open(tmp_path: Path) -> None:
    for number in range(300):
        tar_of(tmp_path / f"{number}.tar", {f"chip_{number}.jpg": f"chip_{number}".encode()})
    found = list_images([str(tmp_path)])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))  # as on macOS
    try:
        with Reader() as reader:
            assert [reader.read(source).decode() for source in found] == [source.name for source in found]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
