"""Any JPEG's bytes to RGB, and RGB to the bytes of a record.

Promises: `to_rgb` equals Pillow's `convert("RGB")` to the bit for every JPEG that Pillow reads, and raises
`RejectedImage`, with the decoder's own words, for every other input; nothing is guessed and no picture is
ever silently black. The size is checked from the header, before a pixel is decoded. No file is touched.
"""

from __future__ import annotations

import functools
import io
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from beam_jobs.markers import SOS, count_scans, mend

# The reasons for which an image is not used; `rejects.jsonl` and `canopy.json` speak in these.
# Found by looking at the image:
UNREADABLE = "unreadable"  # its bytes could not be fetched: permissions, a damaged archive
EMPTY = "empty"  # no bytes at all
NOT_JPEG = "not_jpeg"  # the bytes are something else
UNDECODABLE = "undecodable"  # truncated, corrupt, or of a kind that Pillow does not read
TOO_LARGE = "too_large"  # over the pixel limit, by its header
# Found by its name or its row:
DUPLICATE_NAME = "duplicate_name"  # another image of that name comes first in the order of the paths
BAD_NAME = "bad_name"  # a name that no CSV row and no UTF-8 text can hold
NO_LABEL = "no_label"  # the CSV has no row for it
NO_TAGS = "no_tags"  # its row names no tag
UNKNOWN_TAG = "unknown_tag"  # its row names a tag that the vocabulary lacks

DEFAULT_MAX_PIXELS = 50_000_000  # 200 MB while a 4-component image is decoded
# Each scan is a pass over all pixels, even one of hardly a byte. libjpeg's progressive files have 10, those
# of four components 18: far more are taken of any size, and of small pictures what takes no longer than that.
FEW_SCANS, MAX_SCANS = 50, 1_000
MAX_PASSED_PIXELS = FEW_SCANS * DEFAULT_MAX_PIXELS  # pixels times scans: some seconds

SUBSAMPLING = {"420": 2, "444": 0}  # Pillow's own numbers

# Of corrupt metadata, which changes no pixel: they name a line of Pillow's and no image. Here, since all
# kinds of workers import this.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class RejectedImage(Exception):  # noqa: N818 - not an error of the program: the expected fate of a bad image
    """An image that cannot be used.

    Attributes:
        reason: one of those above.
        detail: what exactly is wrong, in the decoder's own words where it has any.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Encoding:
    """How a record holds its picture."""

    image_format: str = "jpeg"  # jpeg (re-encoded), png (lossless) or keep (the archive's own bytes, mended)
    jpeg_quality: int = 95  # 1 to 100; 95 costs about 45 dB on the original chips
    chroma: str = "420"  # 420 (half resolution for colour) or 444 (full)
    max_pixels: int = DEFAULT_MAX_PIXELS  # width times height above which an image is rejected undecoded
    max_side: int = 0  # pixels; a picture with a longer side is shrunk until that is as long; 0: none is


@dataclass(frozen=True)
class Converted:
    """One image, ready for a record."""

    encoded: bytes  # what `image/encoded` holds
    image_format: str  # "jpeg" or "png"
    height: int  # pixels
    width: int  # pixels
    histogram: list[int] | None  # 3 x 256 counts, channel by channel; None: not asked for
    constant: bool  # every pixel has the same value: worth a look
    mended: bool  # `encoded` is the archive's own bytes with an Adobe marker or an end put in


def check_start(data: bytes) -> None:
    """Raises `RejectedImage` for what is no JPEG by its first bytes."""
    if not data:
        raise RejectedImage(EMPTY, "the file is empty")
    if data[:3] != b"\xff\xd8\xff":
        raise RejectedImage(NOT_JPEG, f"not a JPEG: it starts with {data[:4].hex(' ')}")


def _open(data: bytes, max_pixels: int) -> JpegImagePlugin.JpegImageFile:
    """Reads the header only; raises `RejectedImage` where there is no JPEG of an acceptable size."""
    check_start(data)
    try:
        # Pillow's own plugin, not Image.open: that limits pixels by a global and hides the plugin's words.
        image = JpegImagePlugin.jpeg_factory(io.BytesIO(data))
    except MemoryError:
        raise
    except Exception as error:  # hostile bytes raise nearly anything: SyntaxError, IndexError, struct.error
        raise RejectedImage(UNDECODABLE, _words(error)) from error
    width, height = image.size
    if width * height > max_pixels:
        raise RejectedImage(TOO_LARGE, f"{width} x {height} pixels, more than --max_pixels {max_pixels:,}")
    # One byte is counted in a third of the time that two take, and settles it for nearly every file. A
    # header may hold any bytes, so what the count leaves in doubt is walked through.
    most = min(MAX_SCANS, max(FEW_SCANS, MAX_PASSED_PIXELS // (width * height)))
    if data.count(b"\xda") > most and data.count(SOS) > most:
        scans = count_scans(data)
        if scans > most:
            raise RejectedImage(TOO_LARGE, f"{scans:,} scans, over the limit of {most:,} at this size")
    return image


def _words(error: BaseException) -> str:
    """What the decoder said, on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _load(image: Image.Image) -> None:
    """Decodes in place; raises `RejectedImage` where Pillow cannot."""
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise RejectedImage(UNDECODABLE, _words(error)) from error


def _is_raw_cmyk(image: JpegImagePlugin.JpegImageFile) -> bool:
    return image.mode == "CMYK" and len(image.tile) == 1 and image.tile[0].args == ("CMYK;I", "")


def _decode(data: bytes, max_pixels: int, *, least_side: int = 0, max_side: int = 0) -> Image.Image:
    """Decodes to an image of mode RGB or RGBX (same pixels, one byte unused).

    Reduced as `to_rgb` says, or as far as leaves what `max_side` asks for to be shrunk to.

    Pillow inverts 4-component JPEGs and multiplies by the inverted K plane. Where that plane is 255
    throughout (R, G, B and an unused plane, as in Planet's chips) the result is the first three planes as
    they stand: so they are decoded uninverted and taken as they are, at less than half the time.
    """
    image = _open(data, max_pixels)
    least = (least_side, least_side) if least_side else _within(image.size, max_side)
    _reduce(image, least)
    if _is_raw_cmyk(image):
        image.tile = [image.tile[0]._replace(args=("CMYK", ""))]
        _load(image)
        if image.tobytes("raw", "K") == _full_plane(image.width * image.height):
            try:
                return Image.fromarrow(image, "RGBX", image.size)
            except ValueError:  # over 16 MB Pillow's memory is in several blocks
                return Image.merge("RGB", image.split()[:3])
        image = _open(data, max_pixels)
        _reduce(image, least)
    _load(image)
    return image.convert("RGB")


@functools.lru_cache(maxsize=1)
def _full_plane(pixels: int) -> bytes:
    return b"\xff" * pixels


def _reduce(image: JpegImagePlugin.JpegImageFile, least: tuple[int, int]) -> None:
    """Has the decoder give a half, a quarter or an eighth of the size, if that is no less than `least`.

    Every coded bit is read all the same, so what Pillow raises on is found.
    """
    if least != image.size:
        image.draft(None, least)


def _within(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """Width and height in the same proportion, of which the longer is `max_side` at most; 0: as they are."""
    if not 0 < max_side < max(size):
        return size
    width, height = (max(1, round(side * max_side / max(size))) for side in size)
    return width, height


def _shrunk(image: Image.Image, max_side: int) -> Image.Image:
    """By the triangle filter, as training resizes: a picture of its size it then takes as it stands."""
    size = _within(image.size, max_side)
    return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)


def to_rgb(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS, least_side: int = 0) -> NDArray[np.uint8]:
    """Decodes any JPEG to RGB, exactly as Pillow's `convert("RGB")`.

    Args:
        data: a whole JPEG file: grey, YCbCr, RGB, CMYK, YCCK or 4 components without an Adobe marker.
        max_pixels: width times height above which the image is rejected by its header.
        least_side: pixels; a picture of twice that each way or more is decoded at the part of its size that
            `REDUCTIONS` of the contract names, as training decodes it; 0: always whole.

    Returns:
        uint8[height, width, 3], read-only. EXIF orientation is not applied, as Pillow does not apply it.

    Raises:
        RejectedImage: reason EMPTY, NOT_JPEG, UNDECODABLE or TOO_LARGE.
    """
    image = _decode(data, max_pixels, least_side=least_side)
    # Pillow keeps four bytes a pixel; three are copied out as fast, and leave less to do for what comes next.
    return np.frombuffer(image.tobytes("raw", "RGB"), np.uint8).reshape(image.height, image.width, 3)


def channel_sums(histogram: NDArray[np.int64]) -> NDArray[np.int64]:
    """Per-channel sum and sum of squares of the values that a histogram counts.

    Args:
        histogram: int64[768], as `Converted.histogram`; several may be added up before.

    Returns:
        int64[2, 3], exact.
    """
    counts = histogram.reshape(3, 256)
    values = np.arange(256, dtype=np.int64)
    return np.stack([counts @ values, counts @ (values * values)])


def convert(data: bytes, encoding: Encoding, statistics: bool = True) -> Converted:
    """Turns an archive's JPEG into what a record holds.

    Args:
        data: a whole JPEG file.
        encoding: how the record holds its picture; with `keep`, `max_side` has to be 0.
        statistics: whether the histogram is wanted. It costs a tenth of the whole; with `keep` more, for
            without it the file is decoded at an eighth of its size: every coded bit is still read, so what
            Pillow raises on is still found.

    Returns:
        The encoded picture and what is to be known of it.

    Raises:
        RejectedImage: reason EMPTY, NOT_JPEG, UNDECODABLE or TOO_LARGE.
    """
    if encoding.image_format == "keep" and not statistics:
        return _check(data, encoding.max_pixels)
    image = _shrunk(_decode(data, encoding.max_pixels, max_side=encoding.max_side), encoding.max_side)
    histogram = image.histogram()[:768] if statistics else None
    constant = _is_constant(image)
    mended = False
    if encoding.image_format == "keep":
        encoded = mend(data, len(_open(data, encoding.max_pixels).layer))
        mended = encoded is not data
    else:
        encoded = _encode(image, encoding)
    name = "png" if encoding.image_format == "png" else "jpeg"
    return Converted(encoded, name, image.height, image.width, histogram, constant, mended)


def _check(data: bytes, max_pixels: int) -> Converted:
    """`keep` without statistics: is it sound, how large is it, does it need mending."""
    image = _open(data, max_pixels)
    width, height = image.size
    _reduce(image, (max(width // 8, 1), max(height // 8, 1)))
    _load(image)
    # A picture of one value has one value at an eighth as well; the reverse is then settled in full. In RGB:
    # four components may differ from pixel to pixel where all that is seen of them is black.
    constant = _is_constant(image.convert("RGB")) and _is_constant(_decode(data, max_pixels))
    encoded = mend(data, len(image.layer))
    return Converted(encoded, "jpeg", height, width, None, constant, encoded is not data)


def _is_constant(image: Image.Image) -> bool:
    """Whether all pixels have the same value; corners and middle settle it for nearly every picture."""
    right, bottom = image.width - 1, image.height - 1
    first = image.getpixel((0, 0))
    some = ((right, bottom), (right // 2, bottom // 2), (right, 0), (0, bottom))
    if any(image.getpixel(at) != first for at in some):
        return False
    return all(low == high for low, high in (channel.getextrema() for channel in image.split()[:3]))


def _encode(image: Image.Image, encoding: Encoding) -> bytes:
    """The pixels alone: Pillow would copy the original's comment and profile, and fails on a long comment."""
    out = io.BytesIO()
    if encoding.image_format == "png":
        image = image if image.mode == "RGB" else image.convert("RGB")
        image.save(out, "PNG", compress_level=6, icc_profile=None)
    else:
        tables = _tables(encoding.jpeg_quality)
        image.save(out, "JPEG", qtables=tables, subsampling=SUBSAMPLING[encoding.chroma], comment=b"")
    return out.getvalue()


@functools.cache
def _tables(quality: int) -> list[list[int]]:
    """Quantization tables of a JPEG quality, those of chroma finer by two fifths of what is left to 100.

    Chips are poor in colour contrast and rich in fine texture: libjpeg's chroma table of quality 95 leaves
    the worst of the originals at 41.7 dB, that of 97 lifts it to 42.4 for 9% more bytes.
    """

    def table(at_quality: int, channel: int) -> list[int]:
        out = io.BytesIO()
        Image.new("RGB", (8, 8)).save(out, "JPEG", quality=at_quality)
        tables: dict[int, list[int]] = Image.open(out).quantization  # type: ignore[attr-defined]
        return list(tables[channel])

    return [table(quality, 0), table(quality + round(0.4 * (100 - quality)), 1)]
