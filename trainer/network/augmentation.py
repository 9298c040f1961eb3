"""What a training step does to its images before the network sees them, on the device and a batch at a time.

Promises: all that is random comes from the seed that is given, so that a step can be repeated; a label never
says more of a picture than is in it.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import tensorflow as tf

from trainer import devices
from trainer.tracing import traced

VIEWS = 8  # flips and quarter turns of a square, itself included
TURN, ZOOM, SHIFT = 0.35, 0.12, 0.05  # at most, by --augment affine: radians, log of scale, share of side


def augment(images: Any, seed: Any, kind: str = "d4") -> Any:
    """One of the eight flips and turns for each image of a batch, and more; drawn without state.

    Args:
        images: uint8 or float32[batch, size, size, channels], of a known shape.
        seed: int32[2].
        kind: d4: flips and quarter turns alone, which move pixels and change none; affine: each image is
            turned, scaled and shifted besides, within `TURN`, `ZOOM` and `SHIFT`.

    Returns:
        Of the images' shape; float32 for affine.
    """
    turned = _flipped_and_turned(images, seed)
    return _disturbed(turned, seed) if kind == "affine" else turned


def mix(images: Any, labels: Any, weights: Any, seed: Any, alpha: float) -> tuple[Any, Any]:
    """Blends each row with its neighbour in the batch, labels as much as pixels.

    Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization. Batches are shuffled: the neighbour is any
    other record. Each row draws a share of its own and keeps the larger part: which of the two is called the
    first makes no difference.

    Args:
        images: float32[batch, size, size, channels].
        labels: float32[batch, classes].
        weights: float32[batch], 0 for padding, which blends into nothing.
        seed: int32[2].
        alpha: of the Beta distribution that the share comes from; above 0.

    Returns:
        Images and labels, of the same shapes.
    """
    drawn = tf.random.stateless_gamma([2, tf.shape(images)[0]], seed + tf.constant([0, 3]), alpha)
    share = tf.math.divide_no_nan(drawn[0], drawn[0] + drawn[1])  # Beta(alpha, alpha), of two gammas
    mine = tf.where(tf.roll(weights, 1, axis=0) > 0, tf.maximum(share, 1 - share), 1.0)

    def blended(rows: Any) -> Any:
        shares = tf.reshape(mine, [-1] + [1] * (len(rows.shape) - 1))
        return rows * shares + tf.roll(rows, 1, axis=0) * (1 - shares)

    return blended(images), blended(labels)


def _flipped_and_turned(images: Any, seed: Any) -> Any:
    """Gives each of the eight views to an eighth of the batch's rows; chance says which to which eighth.

    Batches are shuffled: rows beside each other have nothing else in common.
    """
    # What picks one of several computations has to be known on the CPU: drawn on a GPU, each step would wait
    # for the one before it.
    with tf.device(devices.HOST):
        first = tf.random.stateless_uniform([], seed, 0, VIEWS, tf.int32)
    return _dealt(images, first) if devices.gpus() else _dealt_compiled(images, first)


def _dealt(images: Any, first: Any) -> Any:
    """View `first` for the first eighth of the rows, the next one for the next, and so on in a circle."""
    bounds = [images.shape[0] * part // VIEWS for part in range(VIEWS + 1)]

    def beginning_with(number: int) -> Any:
        eighths = [images[start:end] for start, end in itertools.pairwise(bounds)]
        return tf.concat([_view(rows, (number + part) % VIEWS) for part, rows in enumerate(eighths)], axis=0)

    return tf.switch_case(first, [functools.partial(beginning_with, number) for number in range(VIEWS)])


# XLA moves bytes at four times the speed of TensorFlow's own kernels for CPUs.
_dealt_compiled = traced(_dealt, jit_compile=True)


def _view(images: Any, number: int) -> Any:
    """One of the eight: transposed or not, mirrored along either axis or not."""
    if number & 4:
        images = tf.transpose(images, [0, 2, 1, 3])
    axes = [axis for axis, bit in ((1, 1), (2, 2)) if number & bit]
    return tf.reverse(images, axes) if axes else images


def _disturbed(images: Any, seed: Any) -> Any:
    """Turns, scales and shifts each image; what comes in at the border is the image's own reflection."""
    side = images.shape[1]
    drawn = tf.random.stateless_uniform([4, tf.shape(images)[0]], seed + tf.constant([0, 2]), -1.0, 1.0)
    angle, scale = drawn[0] * TURN, tf.exp(drawn[1] * ZOOM)
    cos, sin = tf.cos(angle) * scale, tf.sin(angle) * scale
    middle = (side - 1) / 2  # it stays where it is, but for the shift
    shift_x = middle * (1 - cos + sin) + drawn[2] * SHIFT * side
    shift_y = middle * (1 - sin - cos) + drawn[3] * SHIFT * side
    none = tf.zeros_like(cos)
    with tf.device(devices.HOST):
        border = tf.constant(0.0)  # read on the CPU, too
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=tf.stack([cos, -sin, shift_x, sin, cos, shift_y, none, none], axis=1),
        output_shape=[side, side],
        fill_value=border,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )
