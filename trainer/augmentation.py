"""What a training step does to its images before the network sees them, on the device and a batch at a time.

Promises: all that is random comes from the seed that is given, so that a step can be repeated; a label never
says more of a picture than is in it.
"""

from __future__ import annotations

import itertools
from typing import Any

import tensorflow as tf

VIEWS = 8  # flips and quarter turns of a square, itself included
TURN, ZOOM, SHIFT = 0.35, 0.12, 0.05  # most of --augment affine: radians, log of the scale, share of the side


def augment(images: Any, seed: Any, kind: str = "d4") -> Any:
    """One of the eight flips and turns for each image of a batch, and more; drawn without state.

    Args:
        images: uint8 or float32[batch, size, size, channels].
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
    """Gives each of the eight to an eighth of the batch, by chance to which.

    Eight moves of a part of the batch each cost a CPU a fifth of what a map for each image costs it.
    """
    count = tf.shape(images)[0]
    order = tf.random.experimental.stateless_shuffle(tf.range(count), seed)
    # Where eight does not divide the batch, chance decides which parts get one more: the odds stay even.
    start = tf.random.stateless_uniform([], seed + tf.constant([0, 1]), 0, VIEWS, tf.int32)
    bounds = [(count * part + start) // VIEWS for part in range(VIEWS + 1)]
    places = [order[first:last] for first, last in itertools.pairwise(bounds)]
    parts = [_view(tf.gather(images, place), number) for number, place in enumerate(places)]
    return tf.ensure_shape(tf.dynamic_stitch(places, parts), images.shape)


def _view(images: Any, number: int) -> Any:
    """One of the eight: transposed or not, mirrored along either axis or not."""
    if number & 4:
        images = tf.transpose(images, [0, 2, 1, 3])
    axes = [axis for axis in (1, 2) if number & axis]
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
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=tf.stack([cos, -sin, shift_x, sin, cos, shift_y, none, none], axis=1),
        output_shape=[side, side],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )
