"""Files of a run: whole or not at all, and without a right that a store's users need not have."""

import errno
import resource

import pytest
import tensorflow as tf

from canopy.cli import TryAgainError, UserError
from trainer import files


def test_a_file_is_written_with_its_folder_and_leaves_nothing_beside_it(tmp_path):
    files.write_text(f"{tmp_path}/below/run.json", "one")
    files.write_text(f"{tmp_path}/below/run.json", "two")
    assert [path.read_text() for path in (tmp_path / "below").iterdir()] == ["two"]


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
    asked: list[str] = []
    monkeypatch.setattr(tf.io.gfile, "makedirs", asked.append)
    files.make_folder("gs://bucket/run/checkpoints")
    assert asked == []
    for path in ("run/checkpoints", "file:///run/checkpoints"):
        files.make_folder(path)
        assert asked.pop() == path


def test_what_stands_for_a_folder_is_made_in_a_store_alone(monkeypatch):
    made: list[str] = []
    monkeypatch.setattr(tf.io.gfile, "mkdir", made.append)
    for path in ("run/logs", "file:///run/logs", "gs://bucket/run/logs"):
        files.stand_for_folder(path)
    assert made == ["gs://bucket/run/logs"]


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
