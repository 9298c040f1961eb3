"""The encodings, checked segment by segment and against the decoders that matter."""

import io

import numpy as np
import pytest
from PIL import Image

from canopy.sample.chip import draw_chip
from canopy.sample.encode import ODD_KINDS, Fault, Kind, encode, planet_jpeg, spoil

Segments = list[tuple[int, bytes]]


def segments(jpeg: bytes) -> Segments:
    """Marker and body of each segment from SOI to the first scan."""
    assert jpeg[:2] == b"\xff\xd8"
    found: Segments = []
    at = 2
    while not found or found[-1][0] != 0xDA:
        assert jpeg[at] == 0xFF
        length = int.from_bytes(jpeg[at + 2 : at + 4], "big")
        found.append((jpeg[at + 1], jpeg[at + 4 : at + 2 + length]))
        at += 2 + length
    return found


def of_kind(found: Segments, marker: int) -> list[bytes]:
    return [body for which, body in found if which == marker]


def psnr(one, other) -> float:
    error = np.mean((np.asarray(one, float) - np.asarray(other, float)) ** 2)
    return float(10 * np.log10(255**2 / error))


@pytest.fixture(scope="module")
def chip():
    return draw_chip(("agriculture", "clear", "primary", "road"), (7,), 256)


def test_a_planet_jpeg_is_baseline_with_four_components_that_no_marker_explains(chip):
    found = segments(planet_jpeg(chip))
    assert not [marker for marker, _ in found if 0xE0 <= marker <= 0xEF or marker == 0xFE]
    (frame,) = of_kind(found, 0xC0)
    assert frame[:6] == bytes([8, 1, 0, 1, 0, 4])
    components = [tuple(frame[6 + 3 * i : 9 + 3 * i]) for i in range(4)]
    assert components == [(0, 0x11, 0), (1, 0x11, 0), (2, 0x11, 0), (3, 0x11, 0)]


def test_the_scan_of_a_planet_jpeg_names_components_0_to_3_on_tables_0(chip):
    (scan,) = of_kind(segments(planet_jpeg(chip)), 0xDA)
    assert scan == bytes([4, 0, 0, 1, 0, 2, 0, 3, 0, 0, 63, 0])


def test_a_planet_jpeg_has_the_skeleton_of_an_original_chip(chip, real_data):
    original = real_data / "planet/chips256/train-jpg/train_1.jpg"
    real, drawn = segments(original.read_bytes()), segments(planet_jpeg(chip))
    assert [marker for marker, _ in drawn] == [marker for marker, _ in real]
    for marker in (0xDB, 0xC0, 0xDA):
        assert of_kind(drawn, marker) == of_kind(real, marker)


def test_the_stored_samples_are_red_green_blue_and_255(chip):
    """With Adobe's marker put in and transform 0, Pillow hands out a file's samples, inverted."""
    jpeg = planet_jpeg(chip)
    with Image.open(io.BytesIO(jpeg)) as image:
        samples = 255 - np.asarray(image)
    assert (samples[..., 3] >= 254).all()
    assert psnr(samples[..., :3], chip) > 34


def test_pillow_reads_the_drawn_picture_back(chip):
    with Image.open(io.BytesIO(planet_jpeg(chip))) as image:
        assert image.mode == "CMYK"
        assert psnr(image.convert("RGB"), chip) > 34


def test_tensorflow_reads_a_planet_jpeg_as_black_without_a_word(chip):
    tf = pytest.importorskip("tensorflow")
    assert not tf.io.decode_jpeg(planet_jpeg(chip), channels=3).numpy().any()


@pytest.mark.parametrize("kind", ODD_KINDS, ids=lambda kind: kind.value)
def test_every_odd_kind_shows_the_picture_to_pillow(kind, chip):
    with Image.open(io.BytesIO(encode(chip, kind))) as image:
        shown = image.convert("RGB")
    expected = Image.fromarray(chip).convert("L").convert("RGB") if kind is Kind.GREY else chip
    assert psnr(shown, expected) > 27


def test_the_odd_kinds_are_what_they_are_called(chip):
    found = {kind: segments(encode(chip, kind)) for kind in Kind}
    assert {kind for kind in Kind if of_kind(found[kind], 0xC2)} == {Kind.PROGRESSIVE}
    counts = {kind: (of_kind(found[kind], 0xC0) or of_kind(found[kind], 0xC2))[0][5] for kind in Kind}
    assert counts == {
        Kind.PLANET: 4,
        Kind.CMYK: 4,
        Kind.GREY: 1,
        Kind.JFIF: 3,
        Kind.RGB: 3,
        Kind.PROGRESSIVE: 3,
    }
    assert of_kind(found[Kind.CMYK], 0xEE)[0][:5] == b"Adobe"
    assert of_kind(found[Kind.RGB], 0xEE)[0] == b"Adobe\0\x64\0\0\0\0\0", "whose last byte says: no YCbCr"
    assert of_kind(found[Kind.JFIF], 0xE0)[0][:4] == b"JFIF"


def test_the_faults_are_what_they_are_called(chip):
    assert spoil(chip, Fault.EMPTY) == b""
    assert b"<html>" in spoil(chip, Fault.NOT_JPEG)
    assert planet_jpeg(chip).startswith(spoil(chip, Fault.TRUNCATED)[:1000])


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.value)
def test_a_broken_file_cannot_be_decoded(fault, chip):
    with pytest.raises(OSError), Image.open(io.BytesIO(spoil(chip, fault))) as image:  # noqa: PT011
        image.convert("RGB")
