"""One face for files and objects."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import pytest

from beam_jobs import storage
from canopy.cli import TryAgainError, UserError
from tests.beam_jobs.gcs_server import Faulty
from tests.canopy.test_shared_disk import Node


@pytest.mark.parametrize(
    ("path", "folder", "name"),
    [
        ("gs://b/in//a.jpg", "gs://b/in/", "a.jpg"), ("gs://b/in/a.jpg", "gs://b/in", "a.jpg"),
        ("gs://b/a.jpg", "gs://b", "a.jpg"), ("gs://b/in/", "gs://b/in", ""),
        ("in//a.jpg", "in", "a.jpg"), ("a.jpg", "", "a.jpg"), ("/a.jpg", "/", "a.jpg"),
    ],
)  # fmt: skip
def test_of_an_address_no_slash_is_lost(path: str, folder: str, name: str) -> None:
    assert storage.split(path) == (folder, name)


@pytest.mark.parametrize(
    ("folder", "joined"),
    [
        ("", "a/b"), ("/", "/a/b"), ("in", "in/a/b"), ("in/", "in/a/b"), ("gs://here", "gs://here/a/b"),
        ("gs://here/", "gs://here/a/b"),
    ],
)  # fmt: skip
def test_names_are_joined_by_one_slash(folder: str, joined: str) -> None:
    assert storage.join(folder, "a", "b") == joined


def test_a_local_path_is_told_from_the_root_with_its_links_and_an_address_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to("there")
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("link/a") == f"{tmp_path}/link/a"
    for address in ("gs://here/in//a", "hdfs://here/a"):
        assert storage.absolute(address) == address
    with pytest.raises(UserError):
        storage.absolute("gs://")


def test_a_link_that_leads_nowhere_is_there(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("gone")
    assert storage.exists(f"{tmp_path}/link")
    assert not storage.exists(f"{tmp_path}/gone")


def test_a_folder_of_a_store_is_no_pattern(server: Faulty) -> None:
    for name in ("run[1]/a", "run[1]/t/b", "run1/c", "run[1]x/d"):
        storage.write_bytes(f"gs://here/{name}", b"x")
    assert storage.list_files("gs://here/run[1]") == ["a"]
    assert storage.below("gs://here/run[1]") == ["gs://here/run[1]/a", "gs://here/run[1]/t/b"]
    assert storage.below("gs://here/run[1]/") == storage.below("gs://here/run[1]")
    assert storage.below("gs://here/run[2]") == []


@pytest.mark.parametrize("ends", [ZeroDivisionError, KeyboardInterrupt])
def test_a_writer_that_fails_leaves_the_file_of_before_and_nothing_else(
    ends: type[BaseException], tmp_path: Path
) -> None:
    def fail() -> None:
        with storage.open_write(f"{tmp_path}/a") as file:
            file.write(b"half")
            raise ends

    storage.write_bytes(f"{tmp_path}/a", b"whole")
    with pytest.raises(ends):
        fail()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"whole"}


def test_a_folder_that_is_not_there_holds_no_files_and_others_do_not_count(tmp_path: Path) -> None:
    assert storage.list_files(f"{tmp_path}/none") == []
    (tmp_path / "folder").mkdir()
    for name in "hgfedcba":
        storage.write_bytes(f"{tmp_path}/{name}", b"")
    assert storage.list_files(str(tmp_path)) == list("abcdefgh")


def test_a_folder_is_made_with_those_above_it_unless_a_file_is_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    storage.make_folder("gs://here/a")  # a store has none
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):
        storage.make_folder(f"{tmp_path}/a/b")
    assert (tmp_path / "a" / "b").is_dir()
    storage.write_bytes(f"{tmp_path}/file", b"")
    with pytest.raises(UserError, match=r"cannot make the folder .*/file/c: a part of its path is a file"):
        storage.make_folder(f"{tmp_path}/file/c")


def test_a_file_that_is_gone_is_no_mistake_to_remove_and_a_folder_is_one(tmp_path: Path) -> None:
    storage.write_bytes(f"{tmp_path}/a", b"")
    storage.delete([f"{tmp_path}/gone", f"{tmp_path}/a"])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="cannot remove "):
        storage.delete([str(tmp_path)])


@pytest.mark.parametrize(
    ("path", "error", "said"),
    [
        ("a", FileNotFoundError(), "it does not exist"), ("a", PermissionError(), "access is denied"),
        ("a", NotADirectoryError(), "a part of its path is a file"), ("a", UserError("its own"), "^its own$"),
        ("a", OSError("no number"), "no number"), ("hdfs://h/a", OSError("said\nmore"), "said$"),
        ("hdfs://h/a", ValueError("no address"), "no address"),
    ],
)  # fmt: skip
def test_what_is_refused_is_one_sentence(path: str, error: Exception, said: str) -> None:
    with pytest.raises(UserError, match=said), storage.explained(path, "read"):
        raise error


def test_what_the_system_does_not_look_for_is_told_and_not_taken_to_be_gone(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "file").touch()
    for name, said in (("circle/a", "Too many levels"), ("x" * 300, "name too long")):
        with pytest.raises(UserError, match=f"cannot look for .*{said}"):
            storage.exists(f"{tmp_path}/{name}")
    assert storage.exists(f"{tmp_path}/circle")
    assert not storage.exists(f"{tmp_path}/gone/a")
    assert not storage.exists(f"{tmp_path}/file/a")


def test_a_value_error_about_a_local_path_is_a_bug_and_stays_one() -> None:
    with pytest.raises(ValueError, match="a bug"), storage.explained("a", "read"):
        raise ValueError("a bug")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="this system has no file that cannot be read")
def test_a_file_that_opens_and_cannot_be_read_is_worth_another_try() -> None:
    with pytest.raises(TryAgainError, match="cannot read /proc/self/mem: Input/output error"):
        storage.read_bytes("/proc/self/mem")


def test_a_file_system_may_give_less_than_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_bytes(f"{tmp_path}/a", b"0123456789")
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda handle, length, start: pread(handle, min(length, 3), start))
    with (tmp_path / "a").open("rb") as file:
        assert storage.read_at(file.fileno(), 1, 8) == b"12345678"
        assert storage.read_at(file.fileno(), 5, 8) == b"56789"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ESTALE, TryAgainError), (errno.EIO, TryAgainError), (errno.ETIMEDOUT, TryAgainError),
        (errno.ECONNRESET, TryAgainError), (errno.ENOTCONN, TryAgainError), (errno.EHOSTDOWN, TryAgainError),
        (errno.EHOSTUNREACH, TryAgainError), (errno.ESHUTDOWN, TryAgainError),
        (errno.ECONNABORTED, TryAgainError), (errno.ENETUNREACH, TryAgainError),
        (errno.ENOSPC, UserError), (errno.EDQUOT, UserError), (errno.EROFS, UserError),
    ],
)  # fmt: skip
def test_what_a_disk_may_get_over_is_told_from_what_it_does_not(number: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="cannot read a file: "), storage.explained("a file", "read"):
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EINVAL, None),
        (errno.EBADF, None),
        (errno.ENOTSUP, None),
        (errno.ENOSYS, None),
        (errno.EIO, TryAgainError),
        (errno.ENOSPC, UserError),
    ],
    ids=[
        "it has no such thing",
        "nor for this handle",
        "nor at all",
        "nor is it known",
        "it fails",
        "it is full",
    ],
)
def test_a_disk_that_cannot_sync_a_folder_is_told_unless_it_never_can(
    number: int, said: type[Exception] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    before = os.listdir("/dev/fd")  # noqa: PTH208
    with pytest.raises(said, match="cannot write to") if said else contextlib.nullcontext():
        storage.sync_folder(str(tmp_path))
    assert os.listdir("/dev/fd") == before  # noqa: PTH208
    storage.sync_folder("gs://here/out")  # a store has none


def test_a_file_is_on_the_disk_whole_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setattr(
        os, "fsync", lambda handle: found.append((os.fstat(handle).st_size, (tmp_path / "a").exists()))
    )
    storage.write_bytes(f"{tmp_path}/a", b"whole")
    assert found == [(5, False)]


def test_a_file_that_another_machine_made_since_it_was_missed_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Node(monkeypatch)
    path = tmp_path / "export" / "model.json"
    assert not storage.exists(str(path))
    path.parent.mkdir()
    path.write_bytes(b"{}")
    assert storage.exists(str(path))
    assert storage.is_still_there(str(path))
    path.unlink()
    assert not storage.is_still_there(str(path))


def test_what_ended_the_writing_of_a_file_is_told_and_not_that_its_beginning_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "unlink", gone)
    with pytest.raises(UserError, match="No space left on device"), storage.open_write(f"{tmp_path}/a"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
