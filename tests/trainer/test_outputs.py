"""Folders to write to are looked at before the work, and left as they are."""

import os

import pytest

from canopy.cli import UserError
from trainer.outputs import check_folder


def test_a_folder_that_is_there_or_can_be_made_will_do(tmp_path, monkeypatch):
    check_folder("--output", str(tmp_path))
    check_folder("--output", str(tmp_path / "a" / "b"))
    assert not list(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gs:").touch()  # no part of an address
    check_folder("--output", "gs://bucket/a")


@pytest.mark.parametrize(("below", "what"), [("", "it"), ("/a", "/.*/file"), ("/a/b", "/.*/file")])
def test_a_file_in_place_of_a_folder_is_named(below, what, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=f"--output {tmp_path}/file{below}: {what} is not a folder"):
        check_folder("--output", f"{tmp_path}/file{below}")


def test_an_empty_path_is_not_the_root_of_everything():
    with pytest.raises(UserError, match="--output is empty"):
        check_folder("--output", "")


def test_a_link_that_leads_nowhere_is_no_folder(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="not a folder"):
        check_folder("--output", str(tmp_path / "link" / "a"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_denied_is_named(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(UserError, match="locked cannot be written to"):
        check_folder("--output", str(tmp_path / "locked" / "a"))
