"""The 4-component JPEG mended inside the graph, so that a served model takes the archive's own files.

Promises: a JPEG with 4 components and no Adobe marker gets one (TensorFlow would decode it to black without
a word); any other bytes come out as they went in.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from canopy.contract import ADOBE_MARKER

_SOI_BYTES = 2  # the marker goes right behind the start of image
# Frame headers: every SOFn of ITU-T T.81, table B.1, that is not DHT, JPG or DAC.
_FRAMES = tuple(code for code in range(0xC0, 0xD0) if code not in (0xC4, 0xC8, 0xCC))
_ENDS = (0xDA, 0xD9)  # start of scan, end of image: no header lies behind them
_ADOBE_BYTES = 14  # of the shortest marker that libjpeg takes for Adobe's, its length's two bytes included


def mend(image: Any) -> Any:
    """Puts the Adobe marker into a JPEG that needs it.

    Args:
        image: string scalar, a file's bytes.

    Returns:
        string scalar.
    """

    def with_marker() -> Any:
        head, tail = tf.strings.substr(image, 0, _SOI_BYTES), tf.strings.substr(image, _SOI_BYTES, -1)
        return tf.strings.join([head, ADOBE_MARKER, tail])

    return tf.cond(_lacks_marker(image), with_marker, lambda: image)


def _lacks_marker(image: Any) -> Any:
    """Whether the headers announce 4 components and hold no Adobe marker: bool scalar.

    Walks the markers as libjpeg's `next_marker` does: whatever is not 0xFF is skipped, fill bytes too.
    """
    data = tf.cast(tf.io.decode_raw(image, tf.uint8), tf.int32)
    size = tf.size(data)
    data = tf.pad(data, [[0, 1]], constant_values=0xFF)  # what is looked for is found behind the end at last

    def at(position: Any) -> Any:
        return data[tf.minimum(position, size)]

    def is_in(code: Any, codes: tuple[int, ...]) -> Any:
        return tf.reduce_any(tf.equal(code, tf.constant(codes)))

    def has_length(code: Any) -> Any:
        """Whether a length follows: not behind a stuffed byte, TEM, RSTn, SOI or a fill byte."""
        return (code > 0x01) & ((code < 0xD0) | (code > 0xD8)) & (code != 0xFF)

    def more(position: Any, components: Any, adobe: Any, ended: Any) -> Any:
        return ~ended & (position + 10 <= size)

    def is_marker(position: Any) -> Any:
        return (at(position) == 0xFF) & has_length(at(position + 1))

    def next_marker(position: Any) -> Any:
        """Its position, found in one go: to step over thousands of stray bytes one by one is slow."""
        found = tf.where((data[position:-1] == 0xFF) & has_length(data[position + 1 :]))[:, 0]
        return tf.concat([position + tf.cast(found, tf.int32), [size]], axis=0)[0]

    def step(*state: Any) -> Any:
        return tf.cond(
            is_marker(state[0]), lambda: segment(*state), lambda: (next_marker(state[0]), *state[1:])
        )

    def segment(position: Any, components: Any, adobe: Any, ended: Any) -> tuple[Any, Any, Any, Any]:
        code = at(position + 1)
        components = tf.where(is_in(code, _FRAMES), at(position + 9), components)
        is_adobe = tf.reduce_all(data[position + 4 : position + 9] == tf.constant(list(b"Adobe")))
        length = 256 * at(position + 2) + at(position + 3)
        adobe = adobe | ((code == 0xEE) & is_adobe & (length >= _ADOBE_BYTES))
        return position + 2 + tf.maximum(length, 2), components, adobe, ended | is_in(code, _ENDS)

    is_jpeg = (at(0) == 0xFF) & (at(1) == 0xD8)
    start = (tf.constant(_SOI_BYTES), tf.constant(0), tf.constant(False), ~is_jpeg)
    _, components, adobe, _ = tf.while_loop(more, step, start)
    return (components == 4) & ~adobe
