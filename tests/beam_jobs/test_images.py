"""Any JPEG's bytes to RGB."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, JpegImagePlugin

from beam_jobs import images
from beam_jobs.images import RejectedImage, to_rgb
from beam_jobs.markers import count_scans
from tests.beam_jobs.jpegs import damaged, kinds
from tests.beam_jobs.making import jpeg, noise, ours, pillow, planet, truth, within

SIZES = [(1, 1), (1, 40), (40, 1), (7, 9), (8, 8), (17, 33), (64, 64)]


@pytest.mark.parametrize("size", SIZES)
def test_pixels_equal_pillows_to_the_bit_for_every_kind(size: tuple[int, int]) -> None:
    for kind, data in kinds(3, *size).items():
        expected = truth(data)
        assert np.array_equal(to_rgb(data), expected), kind
        assert to_rgb(data).shape == (*size, 3), kind


def test_a_planet_chip_is_its_first_three_planes() -> None:
    pixels = noise(4, 64, 64)
    assert np.abs(to_rgb(planet(pixels, quality=100)).astype(int) - pixels).max() <= 2


def test_pictures_over_pillows_block_size_are_right_too() -> None:
    data = planet(noise(1, 2100, 2100))
    assert np.array_equal(to_rgb(data), truth(data))


def test_what_is_no_usable_jpeg_is_rejected_with_its_reason() -> None:
    good = jpeg(noise(1))
    png = io.BytesIO()
    Image.fromarray(noise(1)).save(png, "PNG")
    at = good.index(b"\xff\xc0")
    lossless = good[: at + 1] + b"\xc3" + good[at + 2 :]
    deep = good[: at + 4] + b"\x0c" + good[at + 5 :]
    for data, reason in [
        (b"", images.EMPTY),
        (b"\xff", images.NOT_JPEG),
        (b"plain text", images.NOT_JPEG),
        (png.getvalue(), images.NOT_JPEG),
        (good[:3], images.UNDECODABLE),
        (good[: len(good) // 2], images.UNDECODABLE),
        (lossless, images.UNDECODABLE),
        (deep, images.UNDECODABLE),
    ]:
        with pytest.raises(RejectedImage) as caught:
            to_rgb(data)
        assert caught.value.reason == reason
        assert caught.value.detail


def test_the_pixel_limit_is_checked_before_decoding() -> None:
    good = jpeg(noise(1, 40, 50))
    assert to_rgb(good, 2000).shape == (40, 50, 3)
    with pytest.raises(RejectedImage, match="50 x 40"):
        to_rgb(good, 1999)
    at = good.index(b"\xff\xc0")
    huge = good[: at + 5] + b"\xff\xff\xff\xff" + good[at + 9 :]  # 65,535 pixels each way: 12 GB decoded
    with pytest.raises(RejectedImage) as caught:
        to_rgb(huge)
    assert caught.value.reason == images.TOO_LARGE


@pytest.mark.parametrize("code", [0xFE, 0xE5], ids=["comment", "APP5"])
def test_what_a_header_holds_is_not_counted_as_scans(code: int) -> None:
    good = jpeg(noise(1), progressive=True)
    body = b"\xff\xda" * (images.MAX_SCANS + 500)
    data = good[:2] + bytes([0xFF, code]) + (len(body) + 2).to_bytes(2, "big") + body + good[2:]
    assert np.array_equal(to_rgb(data), truth(data))


def with_scans(count: int) -> bytes:
    """A picture whose last scan comes again until there are so many."""
    data = jpeg(noise(1, 8, 8), progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scan * (count - count_scans(data)) + data[-2:]


def test_as_many_scans_as_are_allowed_are_decoded_and_one_more_is_not() -> None:
    data = with_scans(images.MAX_SCANS)
    assert np.array_equal(to_rgb(data), truth(data))
    with pytest.raises(RejectedImage, match=r"1,001 scans") as caught:
        to_rgb(with_scans(images.MAX_SCANS + 1))
    assert caught.value.reason == images.TOO_LARGE


@pytest.mark.parametrize(
    ("side", "most"),
    [(1_500, 1_000), (2_000, 625), (7_000, 51), (65_000, 50)],
    ids=lambda number: f"{number}",
)
def test_of_large_pictures_encoders_scans_are_decoded_and_not_what_takes_minutes(
    side: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing("load", OSError("it was decoded"), monkeypatch)
    for scans, reason in ((most, images.UNDECODABLE), (most + 1, images.TOO_LARGE)):
        data = with_scans(scans)
        at = data.index(b"\xff\xc2") + 5
        data = data[:at] + side.to_bytes(2, "big") * 2 + data[at + 4 :]
        with pytest.raises(RejectedImage) as caught:
            to_rgb(data, max_pixels=2**32)
        assert caught.value.reason == reason
    assert caught.value.detail == f"{scans:,} scans, over the limit of {most:,} at this size"


@pytest.mark.parametrize("step", ["jpeg_factory", "load"])
@pytest.mark.parametrize(
    ("error", "detail"),
    [(IndexError(), "IndexError"), (SyntaxError("broken\n  header"), "SyntaxError: broken header")],
)
def test_whatever_the_decoder_raises_is_a_reject_in_its_words_on_one_line(
    step: str, error: Exception, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(step, error, monkeypatch)
    for data in kinds().values():
        with pytest.raises(RejectedImage) as caught:
            to_rgb(data)
        assert (caught.value.reason, caught.value.detail) == (images.UNDECODABLE, detail)


@pytest.mark.parametrize("step", ["jpeg_factory", "load"])
def test_a_lack_of_memory_is_no_fault_of_the_image(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(step, MemoryError(), monkeypatch)
    with pytest.raises(MemoryError):
        to_rgb(jpeg(noise(1)))


def failing(step: str, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow raises an error when it reads the header, or the pixels."""

    def fail(*_: object) -> None:
        raise error

    place = JpegImagePlugin if step == "jpeg_factory" else JpegImagePlugin.JpegImageFile
    monkeypatch.setattr(place, step, fail)


@settings(max_examples=1500, suppress_health_check=[HealthCheck.too_slow])
@given(damaged())
def test_damaged_bytes_are_either_right_or_rejected(data: bytes) -> None:
    with within(20):
        limit = images.DEFAULT_MAX_PIXELS
        mine = ours(data)
        if mine is not None:
            assert np.array_equal(mine, truth(data))
        else:
            theirs = pillow(data)
            assert theirs is None or theirs.shape[0] * theirs.shape[1] > limit


@settings(max_examples=300)
@given(st.binary(max_size=300), st.booleans())
def test_arbitrary_bytes_are_rejected_never_a_crash(data: bytes, start: bool) -> None:
    data = b"\xff\xd8\xff" + data if start else data
    assert ours(data) is None or pillow(data) is not None
