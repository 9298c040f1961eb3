"""Whose run a model_dir is, and that what was saved comes back."""

import json

import numpy as np
import pytest
import tensorflow as tf

from canopy.cli import UserError
from trainer.checkpoints import Checkpoints, claim_model_dir
from trainer.config import Config


def settings(folder, **changes):
    return Config(data="", model_dir=str(folder), **changes)


def of(folder, *variables, writes=True):
    return Checkpoints(str(folder), variables, lambda variable: variable.numpy(), writes)


def saved(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_the_newest_checkpoint_is_taken_up_and_two_are_kept(tmp_path):
    kernel, count = tf.Variable(tf.zeros([3, 2])), tf.Variable(0, dtype=tf.int64)
    checkpoints = of(tmp_path, kernel, count)
    assert checkpoints.restore() == 0
    for step in (10, 20, 30):
        kernel.assign(tf.fill([3, 2], float(step)))
        count.assign(step)
        checkpoints.save(step)
    assert saved(tmp_path) == ["step-00000020.npz", "step-00000030.npz"]
    fresh, its_count = tf.Variable(tf.ones([3, 2])), tf.Variable(7, dtype=tf.int64)
    assert of(tmp_path, fresh, its_count).restore() == 30
    np.testing.assert_array_equal(fresh, np.full([3, 2], 30.0))
    assert its_count.numpy() == 30


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning_that_names_it(tmp_path, damage, caplog):
    value = tf.Variable(tf.zeros([100]))
    checkpoints = of(tmp_path, value)
    for step in (1, 2):
        value.assign(tf.fill([100], float(step)))
        checkpoints.save(step)
    newest = tmp_path / "checkpoints" / "step-00000002.npz"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 0xFF
    newest.write_bytes({"cut": data[: len(data) // 2], "flipped": data, "emptied": b""}[damage])
    with caplog.at_level("WARNING", logger="canopy"):
        assert checkpoints.restore() == 1
    assert "step-00000002.npz" in caplog.text
    np.testing.assert_array_equal(value, np.full([100], 1.0))


def test_a_checkpoint_of_another_network_is_not_taken_up(tmp_path):
    of(tmp_path, tf.Variable([1.0])).save(1)
    other = tf.Variable([5.0, 5.0])
    assert of(tmp_path, other).restore() == 0
    assert other.numpy().tolist() == [5.0, 5.0]


def test_a_worker_that_is_not_the_chief_writes_nothing(tmp_path):
    of(tmp_path, tf.Variable(1.0), writes=False).save(5)
    assert list(tmp_path.iterdir()) == []


def test_the_same_run_is_resumed(tmp_path):
    claim_model_dir(settings(tmp_path), "data", is_chief=True)
    claim_model_dir(settings(tmp_path, log_steps=3), "data", is_chief=True)
    assert json.loads((tmp_path / "run.json").read_text())["fingerprint"] == "data"


def test_other_settings_are_refused_and_named(tmp_path):
    claim_model_dir(settings(tmp_path), "data", is_chief=True)
    for is_chief in (True, False):
        with pytest.raises(UserError, match=r"--batch_size: was 64, is 8.*--restart"):
            claim_model_dir(settings(tmp_path, batch_size=8), "data", is_chief=is_chief)


def test_other_data_are_refused(tmp_path):
    claim_model_dir(settings(tmp_path), "data", is_chief=True)
    with pytest.raises(UserError, match="fingerprint was data, is other"):
        claim_model_dir(settings(tmp_path), "other", is_chief=True)


def test_restart_begins_anew_and_takes_only_its_own(tmp_path):
    claim_model_dir(settings(tmp_path), "data", is_chief=True)
    for name in ("checkpoints", "export", "logs", "notes"):
        (tmp_path / name).mkdir()
    claim_model_dir(settings(tmp_path, batch_size=8, restart=True), "other", is_chief=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "run.json"]
    assert json.loads((tmp_path / "run.json").read_text())["config"]["batch_size"] == 8


def test_a_damaged_run_json_is_refused(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json"):
        claim_model_dir(settings(tmp_path), "data", is_chief=True)
