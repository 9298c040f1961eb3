"""The network and what training does around it."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from canopy.cli import UserError
from trainer import model
from trainer.config import Config

SMALL = Config(data="", model_dir="", image_size=32, alpha=0.35, weights="none")


def build(config=SMALL, prior=(0.1, 0.5, 0.9), weights=None):
    return model.build(config, len(prior), prior, weights)


def test_an_untrained_network_answers_the_share_of_each_tag():
    network = build()
    for layer in network.layers:
        if layer.name == "logits":
            layer.kernel.assign(tf.zeros_like(layer.kernel))
    scores = tf.sigmoid(network(tf.zeros([1, 32, 32, 3]))).numpy()[0]
    assert scores == pytest.approx([0.1, 0.5, 0.9], abs=1e-5)


def test_batch_normalization_moves_at_a_pace_that_suits_fine_tuning():
    backbone = next(layer for layer in build().layers if isinstance(layer, tf_keras.Model))
    norms = [layer for layer in backbone.layers if isinstance(layer, tf_keras.layers.BatchNormalization)]
    assert len(norms) > 50
    assert {layer.momentum for layer in norms} == {SMALL.bn_momentum}


def test_weights_are_taken_from_a_file(tmp_path):
    donor = build()
    backbone = next(layer for layer in donor.layers if isinstance(layer, tf_keras.Model))
    backbone.save_weights(tmp_path / "weights.h5")
    taker = build(weights=str(tmp_path / "weights.h5"))
    pictures = tf.random.stateless_uniform([2, 32, 32, 3], [1, 2], 0, 255)
    of_donor = tf_keras.Model(donor.input, donor.get_layer("logits").input)(pictures)
    of_taker = tf_keras.Model(taker.input, taker.get_layer("logits").input)(pictures)
    np.testing.assert_allclose(of_donor, of_taker, atol=1e-6)


def test_imagenet_weights_fit(real_data):
    path = next((real_data / "weights").glob("*.h5"))
    full = Config(data="", model_dir="", image_size=32)
    assert build(full, weights=str(path)).count_params() > 2_000_000


def test_weights_that_are_missing_or_do_not_fit_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        build(weights=str(tmp_path / "nowhere"))
    (tmp_path / "other.h5").write_bytes(b"no HDF5")
    with pytest.raises(UserError, match=r"other\.h5"):
        build(weights=str(tmp_path / "other.h5"))


@pytest.mark.parametrize("side", [64, 50])
def test_padding_inside_the_convolutions_changes_no_number(side):
    backbone = build().get_layer("backbone")
    plain = tf_keras.applications.MobileNetV2(
        input_shape=(side, side, 3), alpha=SMALL.alpha, include_top=False, weights=None, pooling="avg"
    )
    plain.set_weights(backbone.get_weights())
    pictures = tf.random.stateless_uniform([2, side, side, 3], [1, 2], -1, 1)
    np.testing.assert_array_equal(backbone(pictures), plain(pictures))


def test_images_of_any_size_are_taken():
    network = build()
    assert {network(tf.zeros([1, side, side, 3])).shape[1] for side in (32, 48, 77)} == {3}


def test_backbone_and_head_together_are_the_network():
    network = build(dataclasses.replace(SMALL, dropout=0.5))
    features, head = model.split(network)
    pictures = tf.random.stateless_uniform([2, 32, 32, 3], [1, 2], 0, 255)
    np.testing.assert_array_equal(head(features(pictures)), network(pictures))
    assert [v.name for v in head.trainable_variables] == ["logits/kernel:0", "logits/bias:0"]
    assert len(network.variables) == len(features.variables) + len(head.variables)


def test_dropout_leaves_features_out_in_training_alone():
    _, head = model.split(build(dataclasses.replace(SMALL, dropout=0.5)))
    features = tf.ones([1, 1280])
    np.testing.assert_array_equal(head(features), head(features))
    assert not np.array_equal(head(features, training=True), head(features, training=True))


@pytest.mark.parametrize(("side", "kind"), [(4, np.float32), (15, np.uint8)])
def test_augmentation_gives_each_of_the_eight_flips_and_turns(side, kind):
    picture = np.arange(side * side, dtype=kind).reshape(side, side, 1)
    views = [np.rot90(flipped, turns) for flipped in (picture, picture[:, ::-1]) for turns in range(4)]
    result = model.augment(tf.constant(np.stack([picture] * 400)), tf.constant([3, 4])).numpy()
    counts = [sum(np.array_equal(each, view) for each in result) for view in views]
    assert sum(counts) == 400
    assert min(counts) > 20


def test_affine_augmentation_without_its_disturbances_is_flips_and_turns(monkeypatch):
    for bound in ("TURN", "ZOOM", "SHIFT"):
        monkeypatch.setattr(model, bound, 0.0)
    pictures = tf.random.stateless_uniform([64, 9, 9, 3], [1, 2], 0, 255)
    plain, affine = (model.augment(pictures, tf.constant([5, 6]), kind) for kind in ("d4", "affine"))
    np.testing.assert_allclose(affine, plain, atol=1e-3)


def test_affine_augmentation_keeps_the_middle_near_the_middle():
    picture = np.zeros((1, 41, 41, 1), np.float32)
    picture[:, 18:23, 18:23] = 1
    result = model.augment(tf.repeat(picture, 200, axis=0), tf.constant([3, 4]), "affine").numpy()[..., 0]
    mass = result.sum(axis=(1, 2))
    at = np.stack([(result * axis).sum(axis=(1, 2)) / mass for axis in np.mgrid[:41, :41]])
    assert np.abs(at - 20).max() <= 41 * model.SHIFT * np.exp(model.ZOOM) * 1.5
    assert mass.min() > 25 * 0.6
    assert mass.max() < 25 * 1.6
    assert len(np.unique(result.round(3).reshape(200, -1), axis=0)) == 200


def test_augmentation_is_drawn_from_its_seed():
    pictures = tf.random.stateless_uniform([8, 4, 4, 3], [0, 0])
    once, again, other = (model.augment(pictures, tf.constant([7, step])).numpy() for step in (1, 1, 2))
    assert (once == again).all()
    assert (once != other).any()


def test_the_learning_rate_warms_up_and_ends_at_zero():
    optimizer = model.optimizer(SMALL, 100)
    schedule = optimizer._learning_rate
    rates = [float(schedule(step)) for step in (0, 5, 10, 55, 100)]
    assert rates[0] == 0
    assert rates[2] == pytest.approx(SMALL.learning_rate)
    assert rates[0] < rates[1] < rates[2] > rates[3] > rates[4]
    assert rates[4] == pytest.approx(0, abs=1e-9)


def test_a_cpu_keeps_float32():
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    assert model.set_precision("auto") == "float32"
