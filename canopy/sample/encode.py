"""JPEG bytes as they occur in the wild, the Planet archive's own odd kind first. Pure.

Promises: `encode` gives a whole, valid file of the kind asked for, the same bytes for the same picture;
`spoil` gives a file that no decoder takes. The Planet kind is the one for which Canopy exists: see
`planet_jpeg`.
"""

from __future__ import annotations

import enum
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

QUALITY = 75  # its quantization table is, number by number, that of the original chips


class Kind(enum.Enum):
    """How a picture is stored."""

    PLANET = "planet"  # 4 components R, G, B, 255 with neither JFIF nor Adobe marker: the archive's own
    JFIF = "jfif"  # the everyday YCbCr JPEG
    RGB = "rgb"  # 3 components R, G, B, said so by an Adobe marker
    GREY = "grey"  # 1 component
    CMYK = "cmyk"  # 4 components with an Adobe marker, inverted as Adobe's programs store them
    PROGRESSIVE = "progressive"  # YCbCr in several scans


ODD_KINDS = tuple(kind for kind in Kind if kind is not Kind.PLANET)


class Fault(enum.Enum):
    """What is wrong with a broken file."""

    TRUNCATED = "truncated"  # a Planet JPEG of which the latter half is missing
    NOT_JPEG = "not a JPEG"  # a web server's error page under the image's name
    EMPTY = "empty"  # no byte


_ERROR_PAGE = b"<!DOCTYPE html>\n<html><body><h1>503</h1><p>The image server is resting.</p></body></html>\n"


def encode(rgb: Pixels, kind: Kind) -> bytes:
    """Stores a picture as a JPEG of some kind.

    Args:
        rgb: uint8[height, width, 3].
        kind: how.

    Returns:
        The file's bytes.
    """
    image = Image.fromarray(rgb)
    if kind is Kind.PLANET:
        return planet_jpeg(rgb)
    if kind is Kind.GREY:
        return _save(image.convert("L"))
    if kind is Kind.CMYK:
        return _save(Image.merge("CMYK", _inks(image)))
    if kind is Kind.RGB:
        return _save(image, keep_rgb=True)
    return _save(image, progressive=kind is Kind.PROGRESSIVE)


def planet_jpeg(rgb: Pixels) -> bytes:
    """Stores a picture as the Planet archive does.

    That is: baseline, four components with the ids 0, 1, 2, 3 and no subsampling, all on quantization table
    0, holding R, G, B and 255; neither a JFIF nor an Adobe segment says what they mean. Decoders that take
    them for plain CMYK show black.

    Args:
        rgb: uint8[height, width, 3].

    Returns:
        The file's bytes.
    """
    # Pillow stores a CMYK picture inverted: inks of 255 - R, 255 - G, 255 - B and 0 go in as R, G, B, 255.
    return _without_markers(_save(Image.merge("CMYK", _inks(Image.fromarray(rgb)))))


def spoil(rgb: Pixels, fault: Fault) -> bytes:
    """Makes a file that ought to hold `rgb` and does not."""
    if fault is Fault.EMPTY:
        return b""
    if fault is Fault.NOT_JPEG:
        return _ERROR_PAGE
    whole = planet_jpeg(rgb)
    return whole[: len(whole) // 2]


def _inks(image: Image.Image) -> tuple[Image.Image, ...]:
    inverted = image.point(lambda value: 255 - value)
    return (*inverted.split(), Image.new("L", image.size, 0))


def _save(image: Image.Image, **options: bool) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True, **options)
    return buffer.getvalue()


def _without_markers(jpeg: bytes) -> bytes:
    """Drops the APPn segments of a 4-component JPEG and numbers its components 0 to 3.

    The layout of the segments is that of ITU T.81, Annex B: a marker (FF xx), then a big-endian length that
    counts itself and the body. Component ids stand at every third byte of a frame header's list and at every
    second of a scan header's.
    """
    kept = [jpeg[:2]]
    at = 2
    while True:
        marker, length = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
        segment = bytearray(jpeg[at : at + 2 + length])
        at += 2 + length
        if 0xE0 <= marker <= 0xEF:
            continue
        if marker == 0xC0:
            segment[10:22:3] = bytes(range(4))
        if marker == 0xDA:
            segment[5:13:2] = bytes(range(4))
        kept.append(bytes(segment))
        if marker == 0xDA:
            return b"".join([*kept, jpeg[at:]])
