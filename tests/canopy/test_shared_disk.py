"""What a network disk tells late: files that another machine made or removed."""

from __future__ import annotations

import os
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
