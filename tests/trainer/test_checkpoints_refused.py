"""Checkpoints on a storage that refuses: a full disk, a server that fails, a folder that is closed."""

import contextlib
import errno
import os
import subprocess

import pytest
import tensorflow as tf

from canopy.cli import TryAgainError, UserError
from tests.trainer.test_checkpoints import at_steps, of, saved
from trainer.checkpoints import REFUSALS


@pytest.mark.parametrize("doing", ["GFile", "listdir"])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ESTALE, "Stale file handle"), TryAgainError),
        (tf.errors.UnavailableError(None, None, "busy"), TryAgainError),
        (tf.errors.PermissionDeniedError(None, None, "no right"), UserError),
    ],
)
def test_a_storage_that_gives_none_of_them_is_tried_again_where_that_may_pass(
    tmp_path, monkeypatch, doing, error, kind
):
    value, _ = at_steps(tmp_path, 1, 2)

    def refuse(*_):
        raise error

    monkeypatch.setattr(tf.io.gfile, doing, refuse)
    with pytest.raises(kind, match="mend the storage"):
        of(tmp_path, value).restore()


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("a disk can be mounted by root alone")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_on_a_full_disk_the_run_goes_on_for_a_while_and_the_older_checkpoints_stay(small_disk, logged):
    value = tf.Variable(tf.zeros([2000]))
    kept = of(small_disk, value)
    assert kept.save(1)
    value.assign(tf.ones([2000]))
    assert kept.save(2)
    with contextlib.suppress(OSError), (small_disk / "other").open("wb", buffering=0) as file:
        while file.write(b"x" * 1024):
            pass
    before = saved(small_disk)
    for step in range(3, 2 + REFUSALS):
        assert not kept.save(step)
        assert f"checkpoint of step {step} could not be saved" in logged.text
        assert saved(small_disk) == before
    with pytest.raises(UserError, match=f"refused {REFUSALS} checkpoints in a row.*mend that"):
        kept.save(2 + REFUSALS)
    assert saved(small_disk) == before
    (small_disk / "other").unlink()
    assert of(small_disk, value).restore() == 2


@pytest.mark.parametrize(
    ("what", "error", "said"),
    [
        (
            "listdir",
            tf.errors.UnknownError(None, None, "Input/output error"),
            "cannot be listed (Input/output error): older checkpoints stay",
        ),
        (
            "remove",
            tf.errors.PermissionDeniedError(None, None, "no right"),
            "step-00000001.npz could not be removed (no right)",
        ),
    ],
)
def test_older_checkpoints_that_cannot_be_listed_or_removed_do_not_end_a_run(
    tmp_path, monkeypatch, logged, what, error, said
):
    _, kept = at_steps(tmp_path, 1, 2)

    def refuse(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(tf.io.gfile, what, refuse)
        assert kept.save(3)
    assert said in logged.text
    assert kept.save(4)
    assert saved(tmp_path) == ["step-00000003.npz", "step-00000004.npz"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (tf.errors.UnavailableError(None, None, "busy"), TryAgainError),
        (tf.errors.ResourceExhaustedError(None, None, "full"), UserError),
    ],
)
def test_a_storage_that_takes_none_of_them_is_tried_again_where_that_may_pass(
    tmp_path, monkeypatch, error, kind
):
    _, kept = at_steps(tmp_path, 1)

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(tf.io.gfile, "rename", refuse)
    for step in range(2, 1 + REFUSALS):
        assert not kept.save(step)
    with pytest.raises(kind, match=f"refused {REFUSALS} checkpoints in a row"):
        kept.save(9)
    assert saved(tmp_path) == ["step-00000001.npz"]


def test_room_that_is_made_in_time_ends_the_trouble(tmp_path, monkeypatch):
    value, kept = at_steps(tmp_path, 1)
    folder = tmp_path / "checkpoints"
    for _ in range(2):
        for step in range(2, 1 + REFUSALS):
            folder.rename(tmp_path / "away")
            folder.write_text("a file where the folder should be")
            assert not kept.save(step)
            folder.unlink()
            (tmp_path / "away").rename(folder)
        assert kept.save(9)
    assert value.numpy() == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_no_end_at_once(tmp_path):
    _, kept = at_steps(tmp_path, 1)
    (tmp_path / "checkpoints").chmod(0o500)
    assert not kept.save(2)
    (tmp_path / "checkpoints").chmod(0o700)
    assert kept.restore() == 1
