"""What the co-occurrence model promises, whatever the seed."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canopy.sample.tags import CONSTANT_TAGS, LAND, TAGS, WEATHER, draw_tags, overlook
from trainer.metrics import fbeta

SEEDS = st.integers(min_value=0, max_value=2**32)


@pytest.fixture(scope="module")
def thousand() -> list[tuple[str, ...]]:
    return [draw_tags(np.random.default_rng((0, index))) for index in range(1200)]


def test_there_are_the_seventeen_tags_of_planet():
    assert len(TAGS) == len(set(TAGS)) == 17


@given(SEEDS)
def test_a_chip_has_exactly_one_weather_tag(seed):
    assert len(set(draw_tags(np.random.default_rng(seed))) & set(WEATHER)) == 1


@given(SEEDS)
def test_a_cloudy_chip_has_no_other_tag_and_any_other_chip_shows_some_ground(seed):
    tags = draw_tags(np.random.default_rng(seed))
    assert (tags == ("cloudy",)) if "cloudy" in tags else (len(tags) >= 2)


@given(SEEDS)
def test_tags_are_known_sorted_and_named_once(seed):
    tags = draw_tags(np.random.default_rng(seed))
    assert list(tags) == sorted(set(tags))
    assert set(tags) <= set(TAGS)


@given(SEEDS)
def test_the_forests_own_tags_only_stand_beside_primary(seed):
    tags = set(draw_tags(np.random.default_rng(seed)))
    if tags & {"blooming", "blow_down", "selective_logging", "slash_burn", "cultivation"}:
        assert "primary" in tags


def test_a_label_leaves_out_little_and_adds_nothing(thousand):
    rng = np.random.default_rng(5)
    labels = [overlook(rng, tags) for tags in thousand]
    assert all(set(label) <= set(tags) for label, tags in zip(labels, thousand, strict=True))
    assert all(
        set(tags) - set(label) <= set(LAND) - {"primary"}
        for label, tags in zip(labels, thousand, strict=True)
    )
    assert all(label == ("cloudy",) or len(label) >= 2 for label in labels)
    missed = sum(len(tags) for tags in thousand) - sum(len(label) for label in labels)
    assert 0.005 < missed / sum(len(tags) for tags in thousand) < 0.03


def test_each_tag_occurs_often_enough_to_be_learnt_and_most_on_few_chips(thousand):
    counts = Counter(tag for tags in thousand for tag in tags)
    assert min(counts[tag] for tag in TAGS) >= 15
    assert max(counts[tag] for tag in set(TAGS) - {"primary", "clear"}) < 400
    assert counts["primary"] + counts["cloudy"] <= len(thousand) - 15, "there is open ground, too"


def test_agriculture_makes_roads_houses_and_plots_likelier(thousand):
    farmed = [tags for tags in thousand if "agriculture" in tags]
    wild = [tags for tags in thousand if "agriculture" not in tags]
    for tag in ("road", "habitation", "cultivation"):
        share_farmed = sum(tag in tags for tags in farmed) / len(farmed)
        share_wild = sum(tag in tags for tags in wild) / len(wild)
        assert share_farmed > 2 * share_wild


def test_a_constant_answer_scores_much_as_it_does_on_the_real_archive(thousand):
    shown = np.array([[tag in tags for tag in TAGS] for tags in thousand])
    answered = np.tile([tag in CONSTANT_TAGS for tag in TAGS], (len(thousand), 1))
    assert 0.55 <= fbeta(answered, shown) <= 0.72
