"""What a network disk tells late: files that another machine made or removed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from canopy import shared_disk


class Node:
    """Looks as one of several machines: what was missing once stays so until its folder is opened again.

    So a kernel's NFS client does for 30 to 60 seconds.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._missing: set[str] = set()
        self._open, self._lstat = os.open, os.lstat
        monkeypatch.setattr(os, "open", self.open)
        monkeypatch.setattr(os, "lstat", self.look)

    def open(self, path: Any, *arguments: Any) -> int:
        self.look(str(path))
        found = self._open(path, *arguments)
        self._missing = {name for name in self._missing if Path(name).parent != Path(path)}
        return found

    def look(self, path: Any) -> os.stat_result:
        above = [str(path), *map(str, Path(path).parents)]
        if not self._missing.isdisjoint(above):
            raise FileNotFoundError(path)
        for name in reversed(above):
            try:
                found = self._lstat(name)
            except FileNotFoundError:
                self._missing.add(name)
                raise
        return found


def test_what_another_machine_made_since_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "export" / "model.json"
    node = Node(monkeypatch)
    with pytest.raises(FileNotFoundError):
        node.look(str(path))
    path.parent.mkdir()
    path.write_bytes(b"")
    with pytest.raises(FileNotFoundError):
        node.look(str(path))
    assert shared_disk.asked(str(path), node.look)


@pytest.mark.parametrize("path", ["nowhere", "no/where", "/no/where/at/all"])
def test_what_is_not_there_stays_so(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError):
        shared_disk.asked(path, os.lstat)
    assert not shared_disk.is_still_there(path)


def test_a_file_is_there_until_it_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "mark"
    path.touch()
    assert shared_disk.is_still_there(str(path))
    path.unlink()
    assert not shared_disk.is_still_there(str(path))


class Client:
    """As `Node`, of another kind of disk: one that may list what it cannot find yet."""

    def __init__(self, monkeypatch, asks_again_when_listed):
        self.vain, self.asks_again = set(), asks_again_when_listed
        self.lstat, self.listdir = os.lstat, os.listdir
        monkeypatch.setattr(os, "lstat", self.look_up)
        monkeypatch.setattr(os, "listdir", self.list)

    def look_up(self, path):
        if any(each in self.vain for each in (path, *path.parents)):
            raise FileNotFoundError(path)
        try:
            return self.lstat(path)
        except FileNotFoundError:
            self.vain.add(path)
            raise

    def list(self, folder):
        if any(each in self.vain for each in (folder, *folder.parents)):
            raise FileNotFoundError(folder)
        if self.asks_again:
            self.vain = {path for path in self.vain if path.parent != folder}
        return self.listdir(folder)


def look_up_in_vain(client, path):
    with pytest.raises(FileNotFoundError):
        client.look_up(path)


@pytest.mark.parametrize("asks_again", [True, False], ids=["asks_when_listed", "waits"])
def test_a_name_that_was_looked_up_in_vain_before_it_was_made_is_found(tmp_path, monkeypatch, asks_again):
    client = Client(monkeypatch, asks_again)
    monkeypatch.setattr(time, "sleep", pytest.fail if asks_again else lambda _: client.vain.clear())
    folder = tmp_path / "made" / "later"
    for path in (folder.parent, folder / "file"):
        look_up_in_vain(client, path)
    folder.mkdir(parents=True)
    (folder / "file").touch()
    look_up_in_vain(client, folder / "file")
    shared_disk.look_for(folder / "file")
    client.look_up(folder / "file")


def test_a_name_that_stays_unknown_is_waited_for_no_longer_than_a_client_remembers(
    tmp_path, monkeypatch, caplog
):
    client = Client(monkeypatch, asks_again_when_listed=False)
    look_up_in_vain(client, tmp_path / "file")
    (tmp_path / "file").touch()
    now = iter(range(0, 1000, 20))
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    shared_disk.look_for(tmp_path / "file")
    assert len(slept) == 6
    assert caplog.text.count("is listed and cannot be found yet") == 1


@pytest.mark.parametrize(
    "name", ["nobody", "no/folder/either", "leads_nowhere", "file/below", "gs://bucket/a"]
)
def test_what_nobody_has_made_is_not_waited_for(tmp_path, monkeypatch, name):
    (tmp_path / "leads_nowhere").symlink_to("nothing")
    (tmp_path / "file").touch()
    monkeypatch.setattr(time, "sleep", pytest.fail)
    monkeypatch.chdir(tmp_path)
    shared_disk.look_for(name if "://" in name else tmp_path / name)
    shared_disk.look_for(name)
