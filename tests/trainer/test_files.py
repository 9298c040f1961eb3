"""Files of a run: whole or not at all, and without a right that a store's users need not have."""

import errno
import os
import resource
import shutil
from pathlib import Path

import pytest
import tensorflow as tf

from canopy.cli import TryAgainError, UserError
from tests.trainer.stale import remember
from trainer import files


def test_a_file_is_written_with_its_folder_and_leaves_nothing_beside_it(tmp_path):
    files.write_text(f"{tmp_path}/below/run.json", "one")
    files.write_text(f"{tmp_path}/below/run.json", "two")
    assert [path.read_text() for path in (tmp_path / "below").iterdir()] == ["two"]


def test_a_file_is_deleted_and_a_folder_with_all_that_is_in_it(tmp_path):
    files.write_text(f"{tmp_path}/run/logs/one", "1")
    files.write_text(f"{tmp_path}/run/logs/two", "2")
    files.delete(f"{tmp_path}/run/logs/one")
    assert [path.name for path in (tmp_path / "run" / "logs").iterdir()] == ["two"]
    files.delete(f"{tmp_path}/run")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_the_disk_has_no_room_for_leaves_nothing_and_the_earlier_one(tmp_path):
    (tmp_path / "report.html").write_text("earlier")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    try:
        with pytest.raises(files.REFUSED):
            files.write_text(f"{tmp_path}/report.html", "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("report.html", "earlier")]


def test_a_store_is_never_asked_for_a_folder(monkeypatch):
    asked: list[Path] = []
    monkeypatch.setattr(Path, "mkdir", lambda path, **_: asked.append(path))
    files.make_folder("gs://bucket/run/checkpoints")
    assert asked == []
    for path in ("/run/checkpoints", "file:///run/checkpoints"):
        files.make_folder(path)
        assert asked.pop() == Path("/run/checkpoints")


def test_what_stands_for_a_folder_is_made_in_a_store_alone(monkeypatch):
    made: list[str] = []
    monkeypatch.setattr(tf.io.gfile, "mkdir", made.append)
    for path in ("run/logs", "file:///run/logs", "gs://bucket/run/logs"):
        files.stand_for_folder(path)
    assert made == ["gs://bucket/run/logs"]


def test_what_another_machine_has_removed_is_not_there_and_is_made_again(tmp_path, monkeypatch):
    remember(monkeypatch)
    folder = tmp_path / "run"
    files.write_text(f"{folder}/run.json", "one")
    assert files.is_there(str(folder))
    assert files.is_there(f"{folder}/run.json")
    assert tf.io.gfile.isdir(str(folder))
    assert tf.io.gfile.exists(f"{folder}/run.json")
    shutil.rmtree(folder)
    assert tf.io.gfile.isdir(str(folder))
    assert tf.io.gfile.exists(f"{folder}/run.json")
    assert not files.is_there(str(folder))
    assert not files.is_there(f"{folder}/run.json")
    files.delete(str(folder))
    files.delete(f"{folder}/run.json")
    files.write_text(f"{folder}/run.json", "two")
    assert files.read(f"{folder}/run.json") == b"two"


def test_a_file_that_this_machine_alone_takes_for_one_is_not_there(tmp_path, monkeypatch):
    def remembers(path):
        raise NotADirectoryError(path)

    monkeypatch.setattr(os, "listdir", remembers)
    assert not files.is_there(f"{tmp_path}/run.json")
    (tmp_path / "run.json").touch()
    assert files.is_there(f"{tmp_path}/run.json")


def test_a_file_is_read_to_its_end_however_long_it_is_said_to_be(tmp_path, monkeypatch):
    (tmp_path / "long").write_bytes(content := bytes(3 << 20))
    monkeypatch.setattr(tf.io.gfile.GFile, "size", lambda _: 5)
    assert files.read(str(tmp_path / "long")) == content


@pytest.mark.parametrize("kept", [".nfs000000000a1b2c3d00000001", ".fuse_hidden0000005000000003"])
def test_what_another_process_has_open_stays_of_a_folder_that_is_deleted(tmp_path, monkeypatch, kept):
    """As NFS' and FUSE's clients do it: the file gets another name, and the folder is not empty."""
    (tmp_path / "logs" / "plugins").mkdir(parents=True)
    opened = tmp_path / "logs" / "plugins" / "events"

    def rmtree(path):
        if opened.exists():
            opened.rename(opened.with_name(kept))
        raise tf.errors.FailedPreconditionError(None, None, f"{path}; Directory not empty")

    monkeypatch.setattr(tf.io.gfile, "rmtree", rmtree)
    with pytest.raises(tf.errors.FailedPreconditionError):
        files.delete(str(tmp_path / "logs"))
    opened.touch()
    files.delete(str(tmp_path / "logs"))
    (tmp_path / "logs" / "notes").touch()
    with pytest.raises(tf.errors.FailedPreconditionError):
        files.delete(str(tmp_path / "logs"))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), tf.errors.UnavailableError(None, None, "busy")])
def test_whatever_ends_the_writing_of_a_file_leaves_nothing_and_is_told(tmp_path, monkeypatch, error):
    def ends(*_, **__):
        raise error

    def refuses(_):
        raise tf.errors.PermissionDeniedError(None, None, "no right")

    monkeypatch.setattr(tf.io.gfile, "rename", ends)
    with pytest.raises(type(error)):
        files.write_text(f"{tmp_path}/run.json", "one")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(tf.io.gfile, "remove", refuses)
    with pytest.raises(type(error)):
        files.write_text(f"{tmp_path}/run.json", "one")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "full"), UserError),
        (OSError(errno.EACCES, "no right"), UserError),
        (OSError(errno.EIO, "I/O error"), TryAgainError),
        (OSError("of no number"), UserError),
        (tf.errors.ResourceExhaustedError(None, None, "full"), UserError),
        (tf.errors.NotFoundError(None, None, "no such bucket"), UserError),
        (tf.errors.DataLossError(None, None, "cut short"), UserError),
        (tf.errors.UnavailableError(None, None, "busy"), TryAgainError),
        (tf.errors.AbortedError(None, None, "another writer"), TryAgainError),
        (tf.errors.DeadlineExceededError(None, None, "too late"), TryAgainError),
        (tf.errors.InternalError(None, None, "HTTP status 500"), TryAgainError),
        (tf.errors.UnknownError(None, None, "; Stale file handle"), TryAgainError),
    ],
)
def test_a_refusal_that_may_pass_is_told_from_one_that_lasts(error, kind):
    assert isinstance(error, files.REFUSED)
    found = files.refusal("a sentence", error)
    assert type(found) is kind
    assert str(found) == "a sentence"
