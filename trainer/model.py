"""The network: a backbone, a linear head, and what training it needs.

Promises: every backbone takes float32 images in 0..255 and ends in float32 logits, so that the loop, the
export and the report never ask which one it is. The keras backbone takes images of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tf_keras

from canopy.cli import UserError
from trainer.config import Config
from trainer.network import hub, precision
from trainer.network.adamw import FusedAdamW

HEAD = "logits"  # the layer that trains from the first step on


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
    if config.backbone == "keras":
        images = tf_keras.Input([None, None, 3], name="image")
        features = _mobilenet(config, start_weights)(
            tf_keras.layers.Rescaling(1 / 127.5, -1.0, dtype="float32")(images)
        )
    else:
        images = tf_keras.Input([config.image_size, config.image_size, 3], name="image")
        features = hub.features(config, tf_keras.layers.Rescaling(1 / 255, dtype="float32")(images))
    shares = np.clip(np.asarray(prior, np.float64), 1e-3, 1 - 1e-3)
    logits = tf_keras.layers.Dense(
        classes,
        dtype="float32",
        bias_initializer=tf_keras.initializers.Constant(np.log(shares / (1 - shares))),
        kernel_initializer=tf_keras.initializers.RandomNormal(stddev=0.01, seed=config.seed),
        name=HEAD,
    )(features)
    return tf_keras.Model(images, logits, name="canopy")


def split(network: Any) -> tuple[Any, Any]:
    """Parts a network into images to features, and features to logits; both share its variables.

    Args:
        network: as `build` makes it.
    """
    head = network.layers[network.layers.index(network.get_layer("backbone")) + 1 :]
    end_of_backbone = head[0].input
    features = logits = tf_keras.Input(end_of_backbone.shape[1:], name="features")
    for layer in head:
        logits = layer(logits)
    return tf_keras.Model(network.input, end_of_backbone), tf_keras.Model(features, logits)


def optimizer(config: Config, total_steps: int) -> Any:
    """AdamW with linear warm-up and cosine.

    Biases and BatchNormalization's parameters are not decayed: pulling them to zero only distorts scales.

    Args:
        config: the run's settings.
        total_steps: steps of the whole run.
    """
    warmup = max(1, round(total_steps * config.warmup_share))
    schedule = tf_keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=config.learning_rate / warmup,  # from 0 the first step would teach nothing
        decay_steps=max(1, total_steps - warmup),
        warmup_target=config.learning_rate,
        warmup_steps=warmup,
        alpha=config.final_rate_share,
    )
    adamw = FusedAdamW(
        schedule,
        weight_decay=config.weight_decay,
        jit_compile=False,
        exchange=config.exchange,
        late_from=max(config.fine_tune_from_epoch, 0) * (total_steps // config.epochs),
        is_late=lambda variable: not variable.name.startswith(f"{HEAD}/"),
    )
    adamw.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    if tf_keras.mixed_precision.global_policy().name == "mixed_float16":
        return tf_keras.mixed_precision.LossScaleOptimizer(adamw)
    return adamw


def _mobilenet(config: Config, start_weights: str | None) -> Any:
    try:
        backbone = tf_keras.applications.MobileNetV2(
            input_shape=(None, None, 3),
            alpha=config.alpha,
            include_top=False,
            weights=start_weights,
            pooling="avg",
        )
    except (ValueError, OSError, KeyError) as error:
        raise UserError(
            f"--weights {start_weights} does not fit MobileNetV2 without top, alpha {config.alpha} ({error})"
        ) from error
    backbone._name = "backbone"
    for layer in backbone.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            layer.momentum = config.bn_momentum
        # Keras pads each strided convolution in a layer of its own, by what SAME pads anyway for a side
        # that is even: the same numbers for 7% less time on a CPU, and right for odd sides, too.
        if isinstance(layer, tf_keras.layers.ZeroPadding2D):
            layer.__class__ = _Unpadded  # the network comes from a function that takes no class
        if isinstance(layer, tf_keras.layers.DepthwiseConv2D):
            layer.padding = "same"
            precision.suit(layer)
    return backbone


class _Unpadded(tf_keras.layers.ZeroPadding2D):
    """Hands on what it is given. TensorFlow Lite keeps, and takes time for, a padding of zero rows, too."""

    def call(self, inputs: Any) -> Any:
        return inputs
