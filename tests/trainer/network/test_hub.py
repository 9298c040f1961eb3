"""Backbones in TensorFlow Hub's format: loaded, trained, exported as any other."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from canopy.cli import UserError
from tests.conftest import ROOT
from trainer import model
from trainer.config import Config
from trainer.network.averaging import Average
from trainer.training.steps import Steps


def build(folder, **settings):
    config = Config(data="", model_dir="", image_size=32, backbone=f"hub:{folder}", **settings)
    return model.build(config, 3, (0.1, 0.5, 0.9), None)


def save_with(folder, *layers):
    inputs = tf_keras.Input([32, 32, 3])
    features = inputs
    for layer in (*layers, tf_keras.layers.GlobalAveragePooling2D()):
        features = layer(features)
    tf_keras.Model(inputs, features).save(folder, save_format="tf")


def test_a_hub_feature_vector_is_a_backbone_like_any_other(tmp_path):
    save_with(tmp_path / "feature_vector", tf_keras.layers.Conv2D(5, 3))
    network = build(tmp_path / "feature_vector")
    assert network(tf.zeros([2, 32, 32, 3])).shape == (2, 3)
    assert len(network.trainable_variables) == 4  # the backbone's two, and the head's
    backbone, head = model.split(network)
    assert (len(backbone.trainable_variables), len(head.trainable_variables)) == (2, 2)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_it_computes_in_float32_whatever_the_policy(tmp_path, policy):
    save_reusable(tmp_path / "reusable")
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        logits = build(tmp_path / "reusable")(tf.zeros([2, 32, 32, 3]))
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    assert logits.dtype == tf.float32


@pytest.mark.parametrize("decay", [0.0, 0.9])
@pytest.mark.parametrize("counts", [False, True])
def test_a_backbone_without_statistics_or_with_a_count_is_agreed_upon_and_averaged(tmp_path, counts, decay):
    layers = [tf_keras.layers.Normalization()] if counts else []
    save_with(tmp_path / "feature_vector", *layers, tf_keras.layers.Conv2D(4, 3))
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        network = build(tmp_path / "feature_vector")
        average = Average(decay, strategy, network, 100)
    steps = Steps(Config(data="", model_dir=""), strategy, network, None, average.statistics)
    average.follow(1)
    steps.agree()
    assert any(not v.dtype.is_floating for v in network.variables) == counts


def save_reusable(folder):
    """Hub's interface for models to fine-tune, with the keyword that sets BatchNormalization's momentum."""
    saved = tf.train.Checkpoint()
    saved.mean = tf.Variable(tf.zeros([3]), trainable=False)
    saved.scale = tf.Variable(tf.ones([3]))
    saved.variables = [saved.scale, saved.mean]
    saved.trainable_variables = [saved.scale]
    saved.regularization_losses = []

    @tf.function
    def call(images, training=False, batch_norm_momentum=0.99):
        mean = tf.reduce_mean(images, [0, 1, 2])
        if training:
            saved.mean.assign(batch_norm_momentum * saved.mean + (1 - batch_norm_momentum) * mean)
        return (tf.reduce_mean(images, [1, 2]) - saved.mean) * saved.scale

    saved.__call__ = call
    images, momentum = tf.TensorSpec([None, 32, 32, 3]), tf.TensorSpec([])
    for training in (True, False):
        call.get_concrete_function(images, training=training, batch_norm_momentum=momentum)
    tf.saved_model.save(saved, str(folder))


def test_a_model_that_takes_a_momentum_gets_ours(tmp_path):
    save_reusable(tmp_path / "reusable")
    network = build(tmp_path / "reusable", bn_momentum=0.75)
    network(tf.fill([2, 32, 32, 3], 255.0), training=True)
    mean = next(v for v in network.non_trainable_variables)
    np.testing.assert_allclose(mean, [0.25] * 3)  # Hub's images are in 0..1


def test_a_hub_handle_that_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        build(tmp_path / "nowhere")


def test_a_saved_model_that_has_signatures_alone_is_told_as_that(tmp_path):
    module = tf.Module()
    module.features = tf.function(lambda x: x[:, 0, 0], input_signature=[tf.TensorSpec([None, 32, 32, 3])])
    tf.saved_model.save(module, tmp_path / "plain", signatures=module.features)
    with pytest.raises(UserError, match=r"/plain cannot be loaded \(it cannot be called"):
        build(tmp_path / "plain")


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ([48, 64, 3], "its own are of 48 x 64 pixels"),
        ([None, None, 1], "(?!its own).+"),
        ([7], "(?!its own).+"),
    ],
)
def test_images_of_another_kind_than_the_models_are_refused(tmp_path, shape, why):
    inputs = tf_keras.Input(shape)
    tf_keras.Model(inputs, tf_keras.layers.Dense(4)(inputs)).save(tmp_path / "other", save_format="tf")
    with pytest.raises(UserError, match=rf"other takes no images of --image_size 32 \({why}\)$"):
        build(tmp_path / "other")


def test_a_model_that_gives_no_vector_is_refused(tmp_path):
    inputs = tf_keras.Input([32, 32, 3])
    tf_keras.Model(inputs, tf_keras.layers.Conv2D(4, 3)(inputs)).save(tmp_path / "map", save_format="tf")
    with pytest.raises(UserError, match="no feature vector"):
        build(tmp_path / "map")


ADDRESS = "https://hub.invalid/feature_vector/1"
NAME = hashlib.sha1(ADDRESS.encode()).hexdigest()  # of the folder in which a download leaves it


def test_a_model_that_lies_where_hub_keeps_downloads_for_all_users_is_not_taken(tmp_path, monkeypatch):
    """Its folder's name is known beforehand, so that anybody may have put it there; a model is a program."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("TFHUB_CACHE_DIR", raising=False)
    save_with(tmp_path / "tfhub_modules" / NAME, tf_keras.layers.Conv2D(5, 3))
    with pytest.raises(UserError, match="cannot be loaded"):
        build(ADDRESS)
    own_folder = tmp_path / f"canopy-{os.getuid()}"
    save_with(own_folder / "tfhub_modules" / NAME, tf_keras.layers.Conv2D(5, 3))
    assert build(ADDRESS)(tf.zeros([2, 32, 32, 3])).shape == (2, 3)


def test_without_a_folder_of_its_own_a_download_has_to_be_given_one(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("TFHUB_CACHE_DIR", raising=False)
    (tmp_path / f"canopy-{os.getuid()}").touch()
    with pytest.raises(UserError, match="name one with TFHUB_CACHE_DIR"):
        build(ADDRESS)
    save_with(tmp_path / "feature_vector", tf_keras.layers.Conv2D(5, 3))
    build(tmp_path / "feature_vector")  # which needs none
    (tmp_path / "feature_vector").rename(tmp_path / NAME)
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    build(ADDRESS)


def weights():
    """ImageNet weights where the machine has them, else random ones: the way is the same."""
    folder = Path(os.environ.get("CANOPY_DATA") or ROOT.parent / "shared" / "data") / "weights"
    return next(iter(sorted(folder.glob("*_1.0_*_no_top.h5"))), None)


@pytest.mark.slow
def test_a_hub_model_is_trained_and_exported_by_two_workers(records, command, tmp_path):
    backbone = tf_keras.applications.MobileNetV2(
        input_shape=(48, 48, 3), include_top=False, pooling="avg", weights=weights()
    )
    backbone.save(tmp_path / "feature_vector", save_format="tf")
    done = command(
        "trainer.launch",
        *("--local_workers", 2, "--", "--data", records, "--model_dir", tmp_path / "model"),
        *("--backbone", f"hub:{tmp_path / 'feature_vector'}", "--image_size", 48, "--batch_size", 8),
        *("--epochs", 2, "--fine_tune_from_epoch", 1),
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    export = tmp_path / "model" / "export"
    assert json.loads((export / "model.json").read_text())["config"]["backbone"].startswith("hub:")
    call = tf.saved_model.load(str(export)).signatures["rgb"]
    scores = call(rgb=tf.zeros([2, 64, 64, 3], tf.uint8))["scores"].numpy()
    assert np.isfinite(scores).all()
