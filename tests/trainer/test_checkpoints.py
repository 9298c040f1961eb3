"""Whose run a model_dir is, and that what was saved comes back."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from canopy.cli import UserError
from trainer.checkpoints import Checkpoints, claim_model_dir
from trainer.config import Config


def settings(folder, **changes):
    return Config(data="", model_dir=str(folder), **changes)


def state():
    network = tf_keras.Sequential([tf_keras.layers.Dense(2)])
    network.build([None, 3])
    optimizer = tf_keras.optimizers.AdamW(0.1)
    optimizer.build(network.trainable_variables)
    return network, optimizer


def test_the_newest_checkpoint_is_taken_up_and_two_are_kept(tmp_path):
    network, optimizer = state()
    checkpoints = Checkpoints(str(tmp_path), network, optimizer, is_chief=True)
    assert checkpoints.restore() == 0
    for step in (10, 20, 30):
        network.layers[0].kernel.assign(tf.fill([3, 2], float(step)))
        checkpoints.save(step)
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("*.index")) == [
        "ckpt-20.index",
        "ckpt-30.index",
    ]
    fresh, its_optimizer = state()
    assert Checkpoints(str(tmp_path), fresh, its_optimizer, is_chief=True).restore() == 30
    np.testing.assert_array_equal(fresh.layers[0].kernel, np.full([3, 2], 30.0))


def test_a_worker_that_is_not_the_chief_leaves_nothing_behind(tmp_path):
    checkpoints = Checkpoints(str(tmp_path / "model"), *state(), is_chief=False)
    checkpoints.save(5)
    checkpoints.close()
    assert not (tmp_path / "model" / "checkpoints").exists()


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
