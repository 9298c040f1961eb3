"""Pictures: every tag leaves its trace, and the same key gives the same pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canopy.sample.chip import draw_chip
from canopy.sample.features import FEATURES
from canopy.sample.tags import LAND, draw_tags

SIZE = 96


def changed(one, other) -> float:
    """The share of pixels in which two pictures differ clearly."""
    return float((np.abs(one.astype(int) - other.astype(int)).max(axis=2) > 12).mean())


def test_every_land_tag_but_the_forest_itself_has_a_feature():
    assert set(FEATURES) == set(LAND) - {"primary"}


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.sampled_from([32, 48, 64, 100]))
def test_any_chip_is_a_picture_of_the_size_asked_for_and_not_one_flat_colour(seed, size):
    tags = draw_tags(np.random.default_rng(seed))
    rgb = draw_chip(tags, (seed,), size)
    assert rgb.shape == (size, size, 3)
    assert rgb.dtype == np.uint8
    assert rgb.std() > 0.4


def test_the_same_key_gives_the_same_pixels_and_another_key_others():
    tags = ("agriculture", "clear", "habitation", "primary", "road", "water")
    assert np.array_equal(draw_chip(tags, (3, 1), SIZE), draw_chip(tags, (3, 1), SIZE))
    assert changed(draw_chip(tags, (3, 1), SIZE), draw_chip(tags, (3, 2), SIZE)) > 0.2


@pytest.mark.parametrize("tag", sorted(FEATURES))
@pytest.mark.parametrize("key", [1, 2, 3])
def test_a_tag_shows_in_the_pixels_and_leaves_the_rest_of_the_chip_alone(tag, key):
    without = draw_chip(("clear", "primary"), (key,), SIZE)
    with_tag = draw_chip(tuple(sorted({"clear", "primary", tag})), (key,), SIZE)
    assert changed(without, with_tag) > 0.003
    if tag != "agriculture":  # fields may reach from edge to edge
        assert changed(without, with_tag) < 0.9


@pytest.mark.parametrize("weather", ["cloudy", "haze", "partly_cloudy"])
def test_weather_shows_in_the_pixels(weather):
    clear = draw_chip(("clear", "primary"), (5,), SIZE)
    assert changed(clear, draw_chip((weather, "primary"), (5,), SIZE)) > 0.05


def test_a_chip_without_primary_forest_looks_otherwise():
    assert (
        changed(draw_chip(("clear", "primary"), (5,), SIZE), draw_chip(("clear", "water"), (5,), SIZE)) > 0.3
    )


def test_haze_lowers_the_contrast_and_a_cloud_deck_hides_the_ground():
    for key in range(4):
        tags = ("agriculture", "clear", "primary", "road")
        clear = draw_chip(tags, (9, key), SIZE).std()
        assert draw_chip((*(set(tags) - {"clear"}), "haze"), (9, key), SIZE).std() < 0.65 * clear
