"""The markers of a JPEG."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_jobs.images import to_rgb
from beam_jobs.markers import EOI, SOS, count_scans, has_adobe_marker, mend, with_adobe_marker, with_end
from canopy.contract import ADOBE_MARKER
from tests.beam_jobs.jpegs import tensorflow_decode
from tests.beam_jobs.making import jpeg, noise, planet

BARE = planet(noise(1))


def with_header(data: bytes, code: int, body: bytes) -> bytes:
    """The same picture with one more header, right behind the start of image."""
    return data[:2] + bytes([0xFF, code]) + (len(body) + 2).to_bytes(2, "big") + body + data[2:]


def test_four_components_without_an_adobe_marker_get_one_right_behind_the_start() -> None:
    assert mend(BARE, 4) == BARE[:2] + ADOBE_MARKER + BARE[2:]


def test_what_has_the_marker_and_its_end_or_fewer_components_comes_back_as_it_is() -> None:
    mended = mend(BARE, 4)
    assert mend(mended, 4) is mended
    assert mend(BARE, 3) is BARE
    grey = jpeg(noise(1), "L")
    assert mend(grey, 1) is grey


@pytest.mark.parametrize(
    "header",
    [(0xEE, b"Adobe" + bytes(6)), (0xEE, b"Adobf" + bytes(7)), (0xED, b"Adobe" + bytes(7))],
    ids=["a byte too short", "another word", "another header"],
)
def test_what_only_looks_like_adobes_marker_is_none(header: tuple[int, bytes]) -> None:
    assert not has_adobe_marker(with_header(BARE, *header))
    assert has_adobe_marker(with_header(BARE, 0xEE, b"Adobe" + bytes(7)))


def test_adobes_marker_in_a_headers_body_or_behind_the_first_scan_is_none() -> None:
    assert not has_adobe_marker(with_header(BARE, 0xE1, ADOBE_MARKER))
    assert not has_adobe_marker(BARE[:-2] + ADOBE_MARKER + EOI)


def test_fill_bytes_before_a_marker_are_passed_over() -> None:
    assert has_adobe_marker(BARE[:2] + b"\xff\xff\xff" + ADOBE_MARKER + BARE[2:])


def test_a_header_without_a_body_hides_nothing_behind_it() -> None:
    assert has_adobe_marker(with_header(mend(BARE, 4), 0xFE, b""))


def test_an_end_is_put_in_where_none_follows_the_first_scan() -> None:
    cut = BARE[:-2]
    assert with_end(cut) == BARE
    assert with_end(BARE) is BARE
    thumbnail = with_header(cut, 0xE1, jpeg(noise(2, 8, 8)))
    assert with_end(thumbnail) == thumbnail + EOI
    assert mend(cut, 4) == mend(BARE, 4)


@pytest.mark.parametrize("end", [b"", EOI])
@pytest.mark.parametrize(
    "tail",
    [b"\xff", b"\xff\xe1", b"\xff\xda\xfb", b"\xff\xff\xda\x00\x0c\x01", b"\xff\xfe\xff\xff" + bytes(9)],
)
def test_a_marker_cut_off_behind_the_scan_does_not_take_the_end_for_its_body(tail: bytes, end: bytes) -> None:
    for sound in (jpeg(noise(1)), jpeg(noise(1), "L")):
        mended = with_end(sound[:-2] + tail + end)
        assert mended.startswith(sound[:-2])
        assert mended.endswith(EOI)
        assert np.array_equal(tensorflow_decode(mended), to_rgb(sound))


def test_scans_are_counted_up_to_the_end_and_not_in_headers() -> None:
    baseline, progressive = jpeg(noise(1)), jpeg(noise(1), progressive=True)
    assert count_scans(baseline) == 1
    assert count_scans(progressive) > 5
    assert count_scans(with_header(baseline, 0xFE, SOS * 100)) == 1
    assert count_scans(baseline + progressive) == 1
    assert count_scans(baseline + bytes(2) + progressive) == 1


@pytest.mark.parametrize("code", [0x00, 0x01, 0xD0, 0xD7, 0xD8])
def test_what_stands_behind_a_marker_without_a_length_is_not_taken_for_one(code: int) -> None:
    assert count_scans(BARE[:2] + bytes([0xFF, code]) + BARE[2:]) == 1


@pytest.mark.parametrize("code", [0xCF, 0xDB])
def test_the_bodies_of_markers_with_the_codes_beside_those_are_passed_over(code: int) -> None:
    assert count_scans(with_header(BARE, code, SOS + bytes(2))) == 1


@settings(max_examples=300)
@given(st.binary(max_size=300), st.booleans(), st.integers(1, 4))
def test_any_bytes_are_walked_through_and_mended_at_most_once(data: bytes, start: bool, count: int) -> None:
    data = b"\xff\xd8\xff" + data if start else b"\xff\xd8" + data
    mended = with_adobe_marker(data, count)
    assert with_adobe_marker(mended, count) == mended
    assert with_end(with_end(data)) == with_end(data)
    count_scans(data)
