"""JPEGs of every kind that an archive may hold, whole and damaged, and how TensorFlow reads them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tests.beam_jobs.making import jpeg, noise, planet


def kinds(seed: int = 1, height: int = 40, width: int = 56) -> dict[str, bytes]:
    """One JPEG of each kind that an archive may hold."""
    three, four = noise(seed, height, width), noise(seed, height, width, 4)
    with_adobe = jpeg(four, "CMYK")
    at = with_adobe.index(b"Adobe")
    return {
        "baseline": jpeg(three),
        "baseline 4:4:4": jpeg(three, subsampling=0),
        "progressive": jpeg(three, progressive=True),
        "restarts": jpeg(three, restart_marker_blocks=2),
        "grey": jpeg(three, "L"),
        "grey progressive": jpeg(three, "L", progressive=True),
        "RGB": jpeg(three, keep_rgb=True),
        "CMYK with the Adobe marker": with_adobe,
        "YCCK with the Adobe marker": with_adobe[: at + 11] + b"\x02" + with_adobe[at + 12 :],
        "4 components, unused fourth": planet(three),
        "4 components, progressive": planet(three, progressive=True),
        "4 components, used fourth": planet(three, fourth=90),
    }


KINDS = list(kinds(1, 24, 32).values())


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A real JPEG with bytes flipped, a part cut out, or a part of another spliced in."""
    data = bytearray(draw(st.sampled_from(KINDS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        how = draw(st.sampled_from(["flip", "cut", "drop", "splice", "marker"]))
        if how == "flip" and data:
            data[at] ^= draw(st.integers(1, 255))
        elif how == "cut":
            del data[at:]
        elif how == "drop":
            del data[at : at + draw(st.integers(1, 60))]
        elif how == "marker":
            data[at:at] = bytes([0xFF, draw(st.integers(0xC0, 0xFE))])
        else:
            other = draw(st.sampled_from(KINDS))
            start = draw(st.integers(0, len(other) - 1))
            data[at:at] = other[start : start + draw(st.integers(1, 200))]
    return bytes(data)


def tensorflow_decode(data: bytes) -> np.ndarray:
    import tensorflow as tf

    decoded = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
    return np.asarray(decoded.numpy())
