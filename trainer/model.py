"""The network: a backbone, a linear head, and what training it needs.

Promises: every backbone takes float32 images in 0..255 and ends in float32 logits, so that the loop, the
export and the report never ask which one it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from canopy.cli import UserError
from trainer.config import Config

PRECISION_SINCE = (
    (8, "mixed_bfloat16"),
    (7, "mixed_float16"),
)  # GPU compute capability, its tensor cores' type


def build(config: Config, classes: int, prior: Sequence[float], start_weights: str | None) -> Any:
    """Builds the network.

    Args:
        config: the run's settings.
        classes: size of the vocabulary.
        prior: share of training records that have each tag; the head starts by answering these, which
            saves the steps that would only learn them.
        start_weights: an .h5 file for the keras backbone, or None for random weights.

    Returns:
        A `tf_keras.Model` from float32[batch, size, size, 3] in 0..255 to logits float32[batch, classes].

    Raises:
        UserError: where the weights or the hub handle cannot be loaded.
    """
    images = tf_keras.Input([config.image_size, config.image_size, 3], name="image")
    if config.backbone == "keras":
        features = _mobilenet(config, start_weights)(tf_keras.layers.Rescaling(1 / 127.5, -1.0)(images))
    else:
        features = _hub(config.backbone.removeprefix("hub:"), config)(
            tf_keras.layers.Rescaling(1 / 255)(images)
        )
    shares = np.clip(np.asarray(prior, np.float64), 1e-3, 1 - 1e-3)
    logits = tf_keras.layers.Dense(
        classes,
        dtype="float32",
        bias_initializer=tf_keras.initializers.Constant(np.log(shares / (1 - shares))),
        kernel_initializer=tf_keras.initializers.RandomNormal(stddev=0.01, seed=config.seed),
        name="logits",
    )(features)
    return tf_keras.Model(images, logits, name="canopy")


def optimizer(config: Config, total_steps: int) -> Any:
    """AdamW with linear warm-up and cosine to zero.

    Biases and BatchNormalization's parameters are not decayed: pulling them to zero only distorts scales.

    Args:
        config: the run's settings.
        total_steps: steps of the whole run.
    """
    warmup = max(1, round(total_steps * config.warmup_share))
    schedule = tf_keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, total_steps - warmup),
        warmup_target=config.learning_rate,
        warmup_steps=warmup,
    )
    adamw = tf_keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay, jit_compile=False)
    adamw.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    if tf_keras.mixed_precision.global_policy().name == "mixed_float16":
        return tf_keras.mixed_precision.LossScaleOptimizer(adamw)
    return adamw


def augment(images: Any, seed: Any) -> Any:
    """One of the eight flips and turns for each image of a batch, drawn without state.

    Three coin flips a picture (left-right, up-down, transpose) reach all eight; as whole-batch operations
    they cost the device next to nothing.

    Args:
        images: [batch, size, size, 3] of any type.
        seed: int32[2].
    """
    coins = tf.random.stateless_uniform([3, tf.shape(images)[0], 1, 1, 1], seed) < 0.5
    images = tf.where(coins[0], tf.reverse(images, [2]), images)
    images = tf.where(coins[1], tf.reverse(images, [1]), images)
    return tf.where(coins[2], tf.transpose(images, [0, 2, 1, 3]), images)


def set_precision(choice: str) -> str:
    """Sets Keras' precision policy and returns its name.

    Args:
        choice: `--mixed_precision`. auto takes the type that the GPU has units for; on CPUs bfloat16 is
            emulated and two to nine times slower, so they stay at float32.
    """
    if choice == "auto":
        choice = "float32"
        for gpu in tf.config.list_physical_devices("GPU")[:1]:
            capability = tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
            choice = next((name for least, name in PRECISION_SINCE if capability[0] >= least), "float32")
    tf_keras.mixed_precision.set_global_policy(choice)
    return choice


def _mobilenet(config: Config, start_weights: str | None) -> Any:
    if start_weights is not None and not Path(start_weights).is_file():
        raise UserError(f"--weights {start_weights}: there is no such file")
    try:
        backbone = tf_keras.applications.MobileNetV2(
            input_shape=(config.image_size, config.image_size, 3),
            alpha=config.alpha,
            include_top=False,
            weights=start_weights,
            pooling="avg",
        )
    except (ValueError, OSError, KeyError) as error:
        raise UserError(
            f"--weights {start_weights} does not fit MobileNetV2 without top, alpha {config.alpha} ({error})"
        ) from error
    for layer in backbone.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            layer.momentum = config.bn_momentum
    return backbone


def _hub(handle: str, config: Config) -> Any:
    import tensorflow_hub

    try:
        return tensorflow_hub.KerasLayer(handle, trainable=True, name="backbone")
    except Exception as error:  # hub raises whatever its resolver or TensorFlow did
        raise UserError(f"--backbone hub:{handle} cannot be loaded ({error})") from error
