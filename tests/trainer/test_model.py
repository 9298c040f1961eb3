"""The network and what training does around it."""

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
    network = build()
    features, head = model.split(network)
    pictures = tf.random.stateless_uniform([2, 32, 32, 3], [1, 2], 0, 255)
    np.testing.assert_array_equal(head(features(pictures)), network(pictures))
    assert [v.name for v in head.trainable_variables] == ["logits/kernel:0", "logits/bias:0"]
    assert len(network.variables) == len(features.variables) + len(head.variables)


def test_the_learning_rate_warms_up_and_ends_at_zero():
    optimizer = model.optimizer(SMALL, 100)
    schedule = optimizer._learning_rate
    rates = [float(schedule(step)) for step in (0, 5, 10, 55, 100)]
    assert rates[0] == pytest.approx(SMALL.learning_rate / 10)  # the first step teaches something, too
    assert rates[2] == pytest.approx(SMALL.learning_rate)
    assert rates[0] < rates[1] < rates[2] > rates[3] > rates[4]
    assert rates[4] == pytest.approx(0, abs=1e-9)
