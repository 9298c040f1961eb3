"""What runs leave in a model_dir, and the sentence for a storage that refuses to be used as one."""

import dataclasses
import errno
import os

import pytest
import tensorflow as tf

from canopy.cli import TryAgainError, UserError
from tests.trainer.stale import hide
from tests.trainer.test_claim import by_hand, settings
from trainer import claim as claims
from trainer.model_dir import check_sources, has_saved


@pytest.mark.parametrize("flag", ["init_from", "weights", "data", "backbone"])
def test_restart_refuses_to_begin_with_what_it_deletes(tmp_path, monkeypatch, flag):
    model_dir = tmp_path / "model"
    (model_dir / "export" / "variables").mkdir(parents=True)
    (tmp_path / "link").symlink_to(model_dir / "export")
    prefix = "hub:" if flag == "backbone" else ""
    for path in (model_dir / "export", model_dir / "logs" / ".." / "export" / "variables", tmp_path / "link"):
        (model_dir / "logs").mkdir(exist_ok=True)
        given = dataclasses.replace(settings(model_dir), **{flag: f"{prefix}{path}"})
        check_sources(given)
        with pytest.raises(UserError, match=f"--{flag} .* lies in what --restart deletes"):
            check_sources(dataclasses.replace(given, restart=True))
    monkeypatch.chdir(model_dir / "export")
    check_sources(settings(model_dir, restart=True, init_from=str(tmp_path)))


def test_restart_knows_what_it_deletes_in_a_store(tmp_path):
    with pytest.raises(UserError, match="--init_from gs://ours/model/export "):
        check_sources(settings("gs://ours/model/", restart=True, init_from="gs://ours/model/export"))
    for elsewhere in ("gs://ours/model/export-2", "gs://ours/earlier/export", str(tmp_path)):
        check_sources(settings("gs://ours/model", restart=True, init_from=elsewhere))


def test_a_checkpoint_is_seen_whatever_characters_the_folders_name_has(tmp_path):
    folder = tmp_path / "rate [1e-3]*" / "checkpoints"
    assert not has_saved(str(folder.parent))
    folder.mkdir(parents=True)
    assert not has_saved(str(folder.parent))
    (folder / "step-00000008.npz").touch()
    assert has_saved(str(folder.parent))


def test_a_checkpoint_that_another_machine_has_just_made_is_seen(tmp_path, monkeypatch):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-00000008.npz").touch()
    hide(monkeypatch, tmp_path / "checkpoints")
    assert has_saved(str(tmp_path))


def test_a_model_dir_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--model_dir .*file/below cannot be used"):
        by_hand(settings(tmp_path / "file" / "below"))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ESTALE, "Stale file handle"), TryAgainError),
        (tf.errors.UnavailableError(None, None, "busy"), TryAgainError),
        (OSError(errno.ENOSPC, "No space left on device"), UserError),
    ],
)
def test_a_storage_that_fails_for_a_while_is_no_mistake_of_the_users(tmp_path, monkeypatch, error, kind):
    claim = by_hand(settings(tmp_path))

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(claims, "write_text", refuse)
    with pytest.raises(kind, match=r"--model_dir .* cannot be used"):
        claim.finish(9)
    with pytest.raises(kind, match=r"--model_dir .* cannot be used"):
        by_hand(settings(tmp_path / "new"))


def test_a_storage_that_does_not_say_whether_the_export_stands_is_one_sentence(tmp_path, monkeypatch):
    by_hand(settings(tmp_path))
    listed = os.listdir

    def fail(path):
        if str(path).endswith("model.json"):
            raise OSError(errno.EIO, "Input/output error")
        return listed(path)

    monkeypatch.setattr(os, "listdir", fail)
    with pytest.raises(TryAgainError, match=r"--model_dir .* cannot be used"):
        by_hand(settings(tmp_path))
