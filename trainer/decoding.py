"""A picture's bytes to the pixels that the network takes: one way for training, export and the report.

Promises: the same bytes come to the same pixels wherever a network looks at them. Prediction comes to those
as well, decoding by Pillow and resizing without TensorFlow (`beam_jobs.images`, `beam_jobs.scoring`).
"""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from canopy import contract
from trainer.mend import mend

_JPEG = b"\xff\xd8\xff"  # how every JPEG begins
_GROUP_PIXELS = 2 * 256**2  # of results that are resized together


def decode(image: Any, ratio: int = 1) -> Any:
    """Decodes an RGB image that any decoder reads right.

    Args:
        image: string scalar, a JPEG's or PNG's bytes (the op takes both).
        ratio: of a JPEG's sides to those of the result, one of 1 and `REDUCTIONS` of the contract. A PNG is
            always decoded whole.

    Returns:
        uint8[height, width, 3]; with the accurate DCT, which is Pillow's, to the bit for 4:4:4.
    """
    return tf.io.decode_jpeg(image, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")


def resize(images: Any, size: int) -> Any:
    """Resizes as training, export and prediction all do.

    Args:
        images: uint8[..., height, width, 3].
        size: side of the result, pixels.

    Returns:
        uint8[..., size, size, 3], bilinear, antialiased where a side shrinks by more than `PLAIN_TO` of the
        contract. An image that has this size already comes out as it went in.
    """
    sides = tf.shape(images)[-3:-1]
    return tf.cond(
        tf.reduce_all(sides == size),
        lambda: images,
        lambda: tf.cond(
            tf.reduce_all(sides <= _most_plain(size)),
            lambda: _scaled(images, size, False),
            lambda: _scaled(images, size, True),
        ),
    )


def batch(encoded: Any, sides: Any, count: int, size: int) -> Any:
    """Decodes and resizes the pictures of a batch.

    Args:
        encoded: string[count], each as `decode` takes it.
        sides: int[count, 2], heights and widths, pixels.
        count: pictures in it.
        size: side of the results, pixels.

    Returns:
        uint8[count, size, size, 3].
    """
    # A loop costs as much as two chips of 32 px: there is none where nothing else is done with them.
    return tf.cond(
        tf.reduce_all(sides == size),
        lambda: _whole(encoded, count),
        lambda: tf.cond(
            tf.reduce_all(sides == sides[0]) & tf.reduce_all(sides <= _most_plain(size)),
            lambda: _in_groups(encoded, count, size),
            lambda: tf.map_fn(
                lambda one: _picture(one[0], one[1], size),
                (encoded, sides),
                fn_output_signature=tf.TensorSpec([size, size, 3], tf.uint8),
            ),
        ),
    )


def from_file(data: Any, size: int) -> Any:
    """Decodes and resizes a file as an archive holds it: the 4-component JPEG without a marker, too.

    Args:
        data: string scalar, its bytes.
        size: side of the result, pixels.

    Returns:
        uint8[size, size, 3].
    """
    shape = _shape(data)
    # Walking through the headers takes a third of the time, and no other kind may need it.
    mended = tf.cond(shape[2] == 4, lambda: mend(data), lambda: data)
    return _picture(mended, shape[:2], size)


def reduced(encoded: Any, least_side: int) -> Any:
    """Decodes one picture no larger than it need be.

    Args:
        encoded: as `decode` takes it.
        least_side: pixels; a JPEG with both sides twice that or more is decoded at a part of its size.

    Returns:
        uint8[height, width, 3].
    """
    return _reduced(encoded, _shape(encoded)[:2], least_side)


def _picture(encoded: Any, sides: Any, size: int) -> Any:
    """One picture, decoded and resized: uint8[size, size, 3]."""
    return tf.ensure_shape(resize(_reduced(encoded, sides, size), size), [size, size, 3])


def _reduced(encoded: Any, sides: Any, least_side: int) -> Any:
    ratios = [functools.partial(decode, encoded, ratio) for ratio in (1, *contract.REDUCTIONS)]
    return tf.switch_case(_reductions(sides, least_side), ratios)


def _whole(encoded: Any, count: int) -> Any:
    """Decodes `count` pictures of one size: uint8[count, height, width, 3]."""
    return tf.stack([decode(each) for each in tf.unstack(encoded, count)])


def _in_groups(encoded: Any, count: int, size: int) -> Any:
    """Pictures of one size that is at most `_most_plain`: uint8[count, size, size, 3].

    A few at a time, one group after another: their pixels, as floats, stay in the cache of the core that has
    decoded them.
    """
    most = max(1, _GROUP_PIXELS // size**2)
    group = max(n for n in range(1, count + 1) if count % n == 0 and n <= most)
    results = tf.map_fn(
        lambda some: _scaled(_whole(some, group), size, False),
        tf.reshape(encoded, [count // group, group]),
        parallel_iterations=1,
        fn_output_signature=tf.TensorSpec([group, size, size, 3], tf.uint8),
    )
    return tf.reshape(results, [count, size, size, 3])


def _scaled(images: Any, size: int, antialias: bool) -> Any:
    # TensorFlow's bilinear kernel takes bytes one by one, and floats four at a time.
    resized = tf.image.resize(tf.cast(images, tf.float32), [size, size], antialias=antialias)
    return tf.cast(resized + contract.ROUNDING, tf.uint8)  # cuts off; neither filter leaves 0..255


def _most_plain(size: int) -> int:
    """The longest side that is resized without antialiasing, pixels."""
    return int(contract.PLAIN_TO * size)


def _shape(data: Any) -> Any:
    """A JPEG's height, width and components, by its header: int32[3]; of anything else zeros: it is whole."""
    return tf.cond(
        tf.strings.substr(data, 0, len(_JPEG)) == _JPEG,
        lambda: tf.io.extract_jpeg_shape(data),
        lambda: tf.zeros([3], tf.int32),
    )


def _reductions(sides: Any, size: int) -> Any:
    """How many of the contract's `REDUCTIONS` leave no side shorter than `size`: int32 scalar."""
    fit = [tf.reduce_min(sides) >= ratio * size for ratio in contract.REDUCTIONS]
    return tf.reduce_sum(tf.cast(tf.stack(fit), tf.int32))
