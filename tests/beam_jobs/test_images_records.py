"""Any JPEG's bytes to those of a record."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image

from beam_jobs import images
from beam_jobs.images import Encoding, RejectedImage, convert, to_rgb
from beam_jobs.markers import EOI, SOS, mend, with_adobe_marker
from canopy.contract import ADOBE_MARKER
from canopy.sample.encode import Kind, encode
from tests.beam_jobs.jpegs import damaged, kinds, tensorflow_decode
from tests.beam_jobs.making import jpeg, noise, ours, pillow, planet, truth, within


def test_png_records_hold_the_pixels_to_the_bit() -> None:
    for kind, data in kinds().items():
        done = convert(data, Encoding("png"))
        assert done.image_format == "png"
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(done.encoded))), truth(data)), kind


@pytest.mark.parametrize(("chroma", "sampling"), [("420", (2, 2)), ("444", (1, 1))])
def test_jpeg_records_are_three_components_at_the_quality_and_chroma_asked_for(
    chroma: str, sampling: tuple[int, int]
) -> None:
    for data in kinds().values():
        done = convert(data, Encoding("jpeg", 80, chroma))
        with Image.open(io.BytesIO(done.encoded)) as picture:
            assert picture.mode == "RGB"
            assert picture.layer[0][1:3] == sampling  # type: ignore[attr-defined]
            assert picture.size == (done.width, done.height) == (56, 40)
    finer = convert(planet(noise(1)), Encoding("jpeg", 95)).encoded
    assert len(finer) > len(convert(planet(noise(1)), Encoding("jpeg", 50)).encoded)


@pytest.mark.parametrize("quality", [1, 80, 95, 100])
def test_colour_is_finer_than_the_quality_asked_for_by_two_fifths_of_what_is_left(quality: int) -> None:
    def tables(data: bytes) -> list[list[int]]:
        with Image.open(io.BytesIO(data)) as picture:
            found: dict[int, list[int]] = picture.quantization  # type: ignore[attr-defined]
        return list(found.values())

    finer = quality + round(0.4 * (100 - quality))
    wanted = [tables(jpeg(noise(1), quality=quality))[0], tables(jpeg(noise(1), quality=finer))[1]]
    assert tables(convert(planet(noise(1)), Encoding("jpeg", quality)).encoded) == wanted


@pytest.mark.parametrize("image_format", ["jpeg", "png", "keep"])
@pytest.mark.parametrize("wanted", [True, False])
def test_the_pixel_limit_is_that_of_the_encoding(image_format: str, wanted: bool) -> None:
    for data in kinds(1, 40, 50).values():
        done = convert(data, Encoding(image_format, max_pixels=2000), wanted)
        assert (done.height, done.width) == (40, 50)
        with pytest.raises(RejectedImage, match="50 x 40") as caught:
            convert(data, Encoding(image_format, max_pixels=1999), wanted)
        assert caught.value.reason == images.TOO_LARGE


@pytest.mark.parametrize(
    ("height", "width", "stored"), [(300, 400, (75, 100)), (401, 200, (100, 50)), (64, 900, (7, 100))]
)
def test_a_picture_over_the_longest_side_is_shrunk_to_it_in_proportion(
    height: int, width: int, stored: tuple[int, int]
) -> None:
    smooth = np.asarray(Image.fromarray(noise(1, 8, 8)).resize((width, height), Image.Resampling.BICUBIC))
    for kind in (Kind.PLANET, Kind.JFIF, Kind.GREY):
        data = encode(smooth, kind)
        done = convert(data, Encoding("png", max_side=100))
        assert (done.height, done.width) == stored
        found = np.asarray(Image.open(io.BytesIO(done.encoded))).astype(float)
        exact = Image.fromarray(truth(data)).resize(stored[::-1], Image.Resampling.BILINEAR)
        assert np.abs(found - np.asarray(exact)).mean() < 1.5, kind
        assert done.histogram is not None
        assert sum(done.histogram) == 3 * stored[0] * stored[1], "statistics are of what the record holds"


@pytest.mark.parametrize("kind", Kind)
def test_a_picture_within_the_longest_side_is_stored_as_it_is(kind: Kind) -> None:
    data = encode(noise(1, 40, 56), kind)
    assert convert(data, Encoding("png", max_side=56)) == convert(data, Encoding("png"))
    assert convert(data, Encoding("png", max_side=55)).width == 55
    thin = convert(encode(noise(1, 900, 3), kind), Encoding("png", max_side=100))
    assert (thin.height, thin.width) == (100, 1), "no side vanishes"


@pytest.mark.parametrize("image_format", ["jpeg", "png"])
def test_a_record_holds_neither_the_comment_nor_the_profile_of_its_original(image_format: str) -> None:
    pixels = noise(1)
    bare = convert(jpeg(pixels), Encoding(image_format)).encoded
    for size in (1, 65_512, 65_533):  # the longest is all that a marker has room for
        data = jpeg(pixels, icc_profile=b"profile" * 20)
        data = data[:2] + b"\xff\xfe" + (size + 2).to_bytes(2, "big") + b"c" * size + data[2:]
        assert convert(data, Encoding(image_format)).encoded == bare


def test_keep_changes_only_what_lacks_the_adobe_marker() -> None:
    for kind, data in kinds().items():
        done = convert(data, Encoding("keep"))
        if kind.startswith("4 components"):
            assert done.mended
            assert done.encoded == data[:2] + ADOBE_MARKER + data[2:], kind
            assert np.array_equal(to_rgb(done.encoded), truth(data)), kind
        else:
            assert not done.mended
            assert done.encoded == data, kind
        assert mend(done.encoded, len(Image.open(io.BytesIO(data)).getbands())) == done.encoded, kind


def with_thumbnail(data: bytes) -> bytes:
    """The same picture with a whole JPEG in a header of its own, as cameras put it there."""
    small = jpeg(noise(2, 8, 8))
    return data[:2] + b"\xff\xe1" + (len(small) + 2).to_bytes(2, "big") + small + data[2:]


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("thumbnail", [True, False])
def test_keep_puts_an_end_behind_a_file_whose_tail_is_zeros_so_that_tensorflow_reads_it_too(
    statistics: bool, thumbnail: bool
) -> None:
    seen = 0
    for kind, data in kinds().items():
        for zeros in (2, 20, len(data) // 4):
            tail = data[:-zeros] + bytes(zeros)
            tail = with_thumbnail(tail) if thumbnail else tail
            if pillow(tail) is None:
                continue
            seen += 1
            done = convert(tail, Encoding("keep"), statistics)
            assert done.mended
            assert done.encoded == with_adobe_marker(tail, 4 if "4 components" in kind else 3) + EOI, kind
            # The two round differently where the K plane darkens a pixel, by one.
            apart = np.abs(tensorflow_decode(done.encoded).astype(int) - truth(tail)).max()
            assert apart <= ("CMYK" in kind or "YCCK" in kind or kind.endswith(", used fourth")), kind
    assert seen > 6


@pytest.mark.parametrize("behind", [b"", b"note", SOS + b"note", jpeg(noise(3))[:-2], jpeg(noise(3))])
def test_keep_leaves_a_file_that_has_its_end_whatever_comes_before_and_behind_it(behind: bytes) -> None:
    data = jpeg(noise(1))
    for whole in (data + behind, with_thumbnail(data) + behind):
        done = convert(whole, Encoding("keep"), statistics=False)
        assert done.encoded == whole
        assert not done.mended


@pytest.mark.parametrize("image_format", ["jpeg", "png"])
def test_a_record_is_the_same_whether_its_pixels_are_counted_or_not(image_format: str) -> None:
    for kind, data in kinds().items():
        counted, bare = (convert(data, Encoding(image_format), wanted) for wanted in (True, False))
        assert counted.histogram is not None
        assert bare == replace(counted, histogram=None), kind
        assert (counted.image_format, counted.mended) == (image_format, False), kind


def test_keep_finds_the_same_faults_with_and_without_statistics() -> None:
    for data in kinds().values():
        with_, without = (convert(data, Encoding("keep"), wanted) for wanted in (True, False))
        assert with_.histogram is not None
        assert without.histogram is None
        assert (with_.encoded, with_.height, with_.width, with_.mended) == (
            without.encoded, without.height, without.width, without.mended,
        )  # fmt: skip
        assert with_.image_format == without.image_format == "jpeg"
        for cut in range(2, len(data) - 2, max(len(data) // 40, 1)):
            verdicts = []
            for wanted in (True, False):
                try:
                    convert(data[:cut], Encoding("keep"), wanted)
                    verdicts.append("used")
                except RejectedImage as rejected:
                    verdicts.append(rejected.reason)
            assert verdicts[0] == verdicts[1]


@pytest.mark.parametrize("image_format", ["jpeg", "png", "keep"])
@pytest.mark.parametrize("wanted", [True, False])
def test_a_picture_of_one_value_is_used_and_named_suspicious(image_format: str, wanted: bool) -> None:
    for value in (0, 128, 255):
        flat = np.full((24, 24, 3), value, np.uint8)
        assert convert(planet(flat), Encoding(image_format), wanted).constant
        assert convert(jpeg(flat, "L"), Encoding(image_format), wanted).constant
    dotted = np.full((24, 24, 3), 128, np.uint8)
    dotted[3, 4, 0] = 255
    striped = (60 + 100 * (np.indices((24, 24, 3))[1] % 2)).astype(np.uint8)  # at an eighth all of one value
    for other in (dotted, striped):
        assert not convert(planet(other), Encoding(image_format), wanted).constant
    assert not convert(planet(noise(1)), Encoding(image_format), wanted).constant


@pytest.mark.parametrize("image_format", ["jpeg", "png", "keep"])
@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 2)])
def test_the_smallest_pictures_become_records_too(
    image_format: str, wanted: bool, size: tuple[int, int]
) -> None:
    for kind, data in kinds(3, *size).items():
        done = convert(data, Encoding(image_format), wanted)
        assert (done.height, done.width) == size, kind
        assert done.constant == (truth(data) == truth(data)[0, 0]).all(), kind


@pytest.mark.parametrize("image_format", ["jpeg", "png", "keep"])
@pytest.mark.parametrize("wanted", [True, False])
def test_a_picture_that_is_black_in_rgb_is_suspicious_whatever_its_other_components_hold(
    image_format: str, wanted: bool
) -> None:
    inks = noise(1, channels=4)
    inks[:, :, 3] = 255
    for data in (planet(noise(1), fourth=0), jpeg(inks, "CMYK")):
        assert not truth(data).any()
        assert convert(data, Encoding(image_format), wanted).constant
    assert not convert(planet(noise(1), fourth=90), Encoding(image_format), wanted).constant


def test_channel_sums_are_exact() -> None:
    for data in kinds().values():
        expected = truth(data)
        histogram = convert(data, Encoding()).histogram
        assert histogram is not None
        sums = images.channel_sums(np.array(histogram))
        wide = expected.reshape(-1, 3).astype(np.int64)
        assert sums.tolist() == [wide.sum(0).tolist(), (wide * wide).sum(0).tolist()]


@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow])
@given(damaged())
def test_what_keep_accepts_has_pillows_pixels_and_is_read_by_tensorflow(data: bytes) -> None:
    with within(20):
        try:
            kept = convert(data, Encoding("keep"), statistics=False)
        except RejectedImage:
            assert ours(data) is None
            return
        expected = to_rgb(data)
        assert np.array_equal(to_rgb(kept.encoded), expected)
        # Not its pixels: the two smooth a progressive picture that lacks scans in their own ways.
        assert tensorflow_decode(kept.encoded).shape == expected.shape


def test_tensorflow_reads_every_record_as_pillow_reads_the_original() -> None:
    for kind, data in kinds().items():
        expected = truth(data)
        kept = tensorflow_decode(convert(data, Encoding("keep")).encoded).astype(int)
        # Pillow and TensorFlow round differently where the K plane darkens a pixel, by one.
        limit = 1 if "YCCK" in kind or "CMYK" in kind or kind.endswith(", used fourth") else 0
        assert np.abs(kept - expected).max() <= limit, kind
        again = convert(data, Encoding("jpeg")).encoded
        assert np.array_equal(tensorflow_decode(again), truth(again)), kind


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def test_original_chips_lose_little(real_data: Path) -> None:
    chips = sorted((real_data / "planet" / "chips256" / "train-jpg").glob("*.jpg"))
    assert len(chips) == 62
    for path in chips:
        data = path.read_bytes()
        expected = truth(data)
        assert expected.mean() > 1
        assert np.array_equal(to_rgb(data), expected)
        for chroma, least in (("420", 42.0), ("444", 46.0)):
            done = convert(data, Encoding("jpeg", 95, chroma))
            assert psnr(to_rgb(done.encoded), expected) >= least, (path.name, chroma)
        kept = convert(data, Encoding("keep"))
        assert kept.mended
        assert np.array_equal(tensorflow_decode(kept.encoded), expected), path.name


def test_odd_jpegs_are_right_or_rejected(real_data: Path) -> None:
    verdicts = {}
    for path in sorted((real_data / "odd_jpegs").iterdir()):
        data = path.read_bytes()
        expected = pillow(data)
        mine = ours(data)
        assert (mine is None) == (expected is None), path.name
        if mine is None:
            with pytest.raises(RejectedImage) as caught:
                convert(data, Encoding("keep"), statistics=False)
            verdicts[path.name] = caught.value.reason
        else:
            assert np.array_equal(mine, truth(data)), path.name
            kept = convert(data, Encoding("keep"), statistics=False)
            assert np.abs(tensorflow_decode(kept.encoded).astype(int) - mine).max() <= 1, path.name
    assert verdicts == {
        "12m__broken-sos-before-sof.jpg": "undecodable",
        "imagers__derive-huffman-codes-overflow.jpg": "undecodable",
        "imagers__empty.jpg": "empty",
        "imagers__jpeg_lossless_sel1.jpg": "undecodable",
        "pillow__truncated_jpeg.jpg": "undecodable",
        "tf__corrupt34_2.jpg": "undecodable",
    }
