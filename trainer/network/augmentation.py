"""What a training step does to its images before the network sees them, on the device and a batch at a time.

Promises: all that is random comes from the seed that is given, so that a step can be repeated; a label never
says more of a picture than is in it.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from trainer import devices

VIEWS = 8  # flips and quarter turns of a square, itself included
TURN, ZOOM, SHIFT = 0.35, 0.12, 0.05  # at most, by --augment affine: radians, log of scale, share of side


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
    """Gives each of the eight views to an eighth of the batch's rows, in a circle that begins at random.

    Batches are shuffled: rows beside each other have nothing else in common. Eight moves of a stretch of rows
    cost a CPU a fraction of what a map for each image, or rows picked one by one, cost it.
    """
    count = tf.shape(images)[0]
    # Where rows begin has to be known on the CPU: drawn on a GPU, each step would wait for the one before it.
    with tf.device(devices.HOST):
        drawn = tf.random.stateless_uniform([2], seed, 0.0, 1.0)
        first = tf.cast(drawn[0] * tf.cast(count, tf.float32), tf.int32)
        # Where eight does not divide the batch, chance decides which parts get one more: the odds stay even.
        more = tf.cast(drawn[1] * VIEWS, tf.int32)
    bounds = [(count * part + more) // VIEWS - first for part in range(VIEWS + 1)]
    parts = []
    for once_round in (0, 1):
        rows = [tf.clip_by_value(bound + once_round * count, 0, count) for bound in bounds]
        parts += [_view(images[rows[v] : rows[v + 1]], v) for v in range(VIEWS)]
    return tf.ensure_shape(tf.concat(parts, axis=0), images.shape)


def _view(images: Any, number: int) -> Any:
    """One of the eight: transposed or not, mirrored along either axis or not."""
    if number & 4:
        images = tf.transpose(images, [0, 2, 1, 3])
    side, channels = images.shape[1:2], images.shape[3]
    if number & 2:  # of three dimensions, a CPU reverses pixels three times as fast as of four
        images = tf.reshape(
            tf.reverse(tf.reshape(images, [-1, *side, channels]), [1]), [-1, *side, *side, channels]
        )
    if number & 1 and images.dtype == tf.uint8:  # what a CPU does fastest; a GPU gathers no bytes
        return tf.gather(images, tf.range(side[0] - 1, -1, -1), axis=1)
    # A GPU would have the rows' numbers copied to it, and a copy waits for the step before.
    return tf.reverse(images, [1]) if number & 1 else images


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
