"""A name that another machine made a moment ago is found, and one that nobody made costs no time."""

import os
import time

import pytest

from canopy import late


class Client:
    """What a client of a network's disk remembers: names that it has once looked up in vain."""

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
    monkeypatch.setattr(time, "sleep", lambda _: client.vain.clear())
    folder = tmp_path / "made" / "later"
    for path in (folder.parent, folder / "file"):
        look_up_in_vain(client, path)
    folder.mkdir(parents=True)
    (folder / "file").touch()
    look_up_in_vain(client, folder / "file")
    late.look_for(folder / "file")
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
    late.look_for(tmp_path / "file")
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
    late.look_for(name if "://" in name else tmp_path / name)
    late.look_for(name)
