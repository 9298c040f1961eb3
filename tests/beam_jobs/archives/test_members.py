"""Members of archives: read whole, or rejected one by one."""

from __future__ import annotations

import errno
import os
import resource
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import IO

import pytest

from beam_jobs import sources, storage
from beam_jobs.archives.members import MAX_BYTES
from beam_jobs.images import UNREADABLE, RejectedImage
from beam_jobs.listing import list_images
from beam_jobs.sources import Reader
from canopy.cli import TryAgainError
from tests.beam_jobs.making import pack, read_all, tar_of, within, zip_of


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


def test_a_member_that_is_not_where_the_index_says_is_rejected_by_itself(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a.jpg": b"A" * 100, "b.jpg": b"B" * 100}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x03\x04")] = 0
    path.write_bytes(data)
    with Reader() as reader:
        first, second = list_images([str(path)])
        with pytest.raises(RejectedImage, match="the archive's index points to something else"):
            reader.read(first)
        assert reader.read(second) == b"B" * 100


def test_a_zip_bomb_is_rejected_before_it_bursts(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a.jpg": b"\0" * 5_000_000, "b.jpg": b"b"})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = (100).to_bytes(4, "little")  # the index says 100 bytes
    path.write_bytes(data)
    source = list_images([str(path)])[0]
    tracemalloc.start()
    try:
        with Reader() as reader, pytest.raises(RejectedImage, match="checksum"):
            reader.read(source)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("length", [24, 2_000], ids=["times and owners", "more than is read with the header"])
def test_what_programs_add_to_a_members_header_is_not_taken_for_its_data(tmp_path: Path, length: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in "ab":
            member = zipfile.ZipInfo(f"{name}.jpg")
            member.extra = b"UT" + (length - 4).to_bytes(2, "little") + bytes(length - 4)
            archive.writestr(member, name * 1_000)
    assert read_all(tmp_path) == {name: name.encode() * 1_000 for name in "ab"}


def test_an_archive_is_opened_once_for_all_its_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar_of(tmp_path / "a.tar", {f"{name}.jpg": name.encode() for name in "abc"})
    opened: list[str] = []
    open_read = storage.open_read

    def opening(path: str) -> IO[bytes]:
        opened.append(path)
        return open_read(path)

    found = list_images([str(tmp_path)])
    monkeypatch.setattr(storage, "open_read", opening)
    with Reader() as reader:
        assert [reader.read(source) for source in found] == [b"a", b"b", b"c"]
    assert opened == [f"{tmp_path}/a.tar"]


@pytest.mark.parametrize("field", ["a tar's size", "a zip's size", "a zip's stored"])
def test_a_member_that_no_memory_holds_is_rejected_unread(tmp_path: Path, field: str) -> None:
    size = MAX_BYTES + 1
    if field == "a tar's size":
        path = tmp_path / "a.tar"
        info = tarfile.TarInfo("a.jpg")
        info.size = size
        path.write_bytes(info.tobuf())
        os.truncate(path, size + 4 * 512)
    else:
        path = zip_of(tmp_path / "a.zip", {"a.jpg": b"chip"})
        data = bytearray(path.read_bytes())
        at = data.index(b"PK\x01\x02") + {"a zip's stored": 20, "a zip's size": 24}[field]
        data[at : at + 4] = size.to_bytes(4, "little")
        path.write_bytes(data)
    (source,) = list_images([str(path)])
    with Reader() as reader, within(20), pytest.raises(RejectedImage, match="1,073,741,825 bytes, over"):
        reader.read(source)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_that_an_archive_has_lost_since_it_was_listed_is_rejected(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    pack(path, {"a.jpg": os.urandom(1_000), "b.jpg": b"chip"})
    first, second = list_images([str(path)])
    os.truncate(path, 1_000)
    with Reader() as reader:
        for source in (first, second):
            with pytest.raises(RejectedImage, match=r"the archive ends within it, \d+ bytes after"):
                reader.read(source)


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


@pytest.mark.parametrize("kind", ["file", "zip", "tar"])
@pytest.mark.parametrize(
    ("number", "raised", "said"),
    [
        (errno.EIO, RejectedImage, "'Input/output error'"),
        (errno.ESTALE, TryAgainError, "^an image cannot be read: .*Stale .*file handle"),
    ],
    ids=["a bad block", "a file server that is gone"],
)
def test_a_bad_block_is_one_images_loss_and_a_file_server_that_is_gone_ends_the_job(
    kind: str,
    number: int,
    raised: type[Exception],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if kind == "file":
        (tmp_path / "a.jpg").write_bytes(b"chip")
    else:
        pack(tmp_path / f"a.{kind}", {"a.jpg": b"chip"})

    def fails(*_: object) -> bytes:
        raise OSError(number, os.strerror(number))

    (source,) = list_images([str(tmp_path)])
    monkeypatch.setattr(os, "pread", fails)
    monkeypatch.setattr(sources, "RETRY_SECONDS", 0.0)
    with Reader() as reader, pytest.raises(raised, match=said):
        reader.read(source)


@pytest.mark.parametrize("kind", ["file", "zip", "tar"])
def test_an_image_is_read_where_a_connection_broke_and_there_is_another_one(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "file":
        (tmp_path / "a.jpg").write_bytes(b"chip")
    else:
        pack(tmp_path / f"a.{kind}", {"a.jpg": b"chip"})
    pread, broken = os.pread, list[int]()

    def fails(handle: int, *arguments: int) -> bytes:
        if not broken or (
            kind != "file" and handle in broken
        ):  # a file's handle is closed, and its number free
            broken.append(handle)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(handle, *arguments)

    (source,) = list_images([str(tmp_path)])
    monkeypatch.setattr(os, "pread", fails)
    monkeypatch.setattr(sources, "RETRY_SECONDS", 0.0)
    with Reader() as reader:
        assert reader.read(source) == b"chip"


def test_an_io_error_of_the_folder_as_well_ends_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"chip")

    def fails(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (source,) = list_images([str(tmp_path)])
    monkeypatch.setattr(os, "open", fails)
    monkeypatch.setattr(sources, "RETRY_SECONDS", 0.0)
    with (
        Reader() as reader,
        pytest.raises(TryAgainError, match=f"cannot read {tmp_path}: Input/output error"),
    ):
        reader.read(source)


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
