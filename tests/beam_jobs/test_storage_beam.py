"""Files that only Beam's own file systems reach."""

from __future__ import annotations

import gc
import gzip
import io
from collections.abc import Iterator
from typing import Any

import pytest
from apache_beam.io.filesystem import FileMetadata, FileSystem
from apache_beam.io.filesystemio import Uploader, UploaderStream

from beam_jobs import storage
from canopy.cli import UserError
from tests.beam_jobs.stores import each_store


class Memory(FileSystem):
    """A store that only Beam knows; it writes through Beam's own streams, as that of HDFS or Azure does."""

    files: dict[str, bytes] = {}  # noqa: RUF012 - Beam makes an object of the class for each call

    @classmethod
    def scheme(cls) -> str:
        return "memory"

    def create(self, path: str, mime_type: str = "", compression_type: str = "auto") -> Any:
        assert compression_type == "uncompressed"
        return io.BufferedWriter(UploaderStream(Upload(path)))

    def open(self, path: str, mime_type: str = "", compression_type: str = "auto") -> Any:
        assert compression_type == "uncompressed"
        return io.BytesIO(self.files[path])

    def exists(self, path: str) -> bool:
        return path in self.files

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            del self.files[path]

    def has_dirs(self) -> bool:
        return False

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        for path, data in self.files.items():
            if path.startswith(dir_or_prefix):
                yield FileMetadata(path, len(data))

    def _unused(self, *_: Any) -> Any:
        raise NotImplementedError

    join = split = mkdirs = copy = rename = size = last_updated = checksum = metadata = _unused


class Upload(Uploader):
    """An object of it that is there once it is finished."""

    def __init__(self, path: str) -> None:
        self.path, self.data = path, b""

    def put(self, data: bytes) -> None:
        self.data += data

    def finish(self) -> None:
        Memory.files[self.path] = self.data


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(Memory, "files", {})
    return "memory://here"


def test_what_beam_reaches_is_written_and_read_as_it_is(memory: str) -> None:
    data = gzip.compress(b"image_name,tags")
    storage.write_bytes(f"{memory}/t/labels.csv.gz", data)
    storage.write_bytes(f"{memory}/t/in/[1].jpg", b"chip")
    assert storage.read_bytes(f"{memory}/t/labels.csv.gz") == data
    assert storage.read_range(f"{memory}/t/labels.csv.gz", 2, 3) == data[2:5]
    assert storage.list_files(f"{memory}/t") == ["labels.csv.gz"]
    assert storage.is_file(f"{memory}/t/in/[1].jpg")
    assert not storage.is_file(f"{memory}/t/in")
    storage.delete([f"{memory}/t/labels.csv.gz"] * 2)
    assert storage.below(f"{memory}/t/") == [f"{memory}/t/in/[1].jpg"]


def test_a_failed_writer_leaves_no_object_where_beam_writes(memory: str) -> None:
    each_store.leaves_no_object_of_a_failed_writer(memory)
    gc.collect()  # a stream that nobody holds any more finishes its upload
    assert not Memory.files


@pytest.mark.parametrize("put", [b"", b"ha"], ids=["nothing is there", "a part is there"])
def test_a_whole_file_that_cannot_be_finished_where_beam_writes_is_told_and_taken_away(
    put: bytes, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [put]

    def finish(upload: Upload) -> None:
        if left and (part := left.pop()):
            Memory.files[upload.path] = part
        raise OSError("the quota is used up")

    monkeypatch.setattr(Upload, "finish", finish)
    with pytest.raises(UserError, match=f"cannot write {memory}/a: the quota is used up"):
        storage.write_bytes(f"{memory}/a", b"half")
    assert not Memory.files


def test_what_beam_lists_is_sorted(memory: str) -> None:
    for name in ("b/c", "b/a", "a"):
        storage.write_bytes(f"{memory}/{name}", b"")
    assert storage.below(memory) == [f"{memory}/{name}" for name in ("a", "b/a", "b/c")]
    assert storage.match(f"{memory}/b/*") == [f"{memory}/b/a", f"{memory}/b/c"]
    assert storage.list_files(f"{memory}/b") == storage.list_files(f"{memory}/b/") == ["a", "c"]


def test_what_beam_cannot_remove_is_told(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError

    storage.write_bytes(f"{memory}/a", b"")
    monkeypatch.setattr(Memory, "delete", refuse)
    with pytest.raises(UserError, match=f"cannot remove {memory}/a: access is denied"):
        storage.delete([f"{memory}/a"])


@pytest.mark.parametrize("scheme", ["file", "https"])
def test_a_scheme_that_nobody_knows_is_told_without_advice_for_another(scheme: str) -> None:
    with pytest.raises(
        UserError, match=f"no file system is known for {scheme}://, and a path of this machine"
    ):
        storage.below(f"{scheme}:///tmp/archive")
