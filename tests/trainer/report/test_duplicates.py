"""Twins across splits: found where they are, and only there."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from canopy.sample.chip import draw_chip
from tests.trainer.report.making import jpeg, looks
from trainer.report import duplicates
from trainer.report.looks import Looks


def test_the_same_file_under_another_name_is_an_exact_twin():
    split = looks([jpeg(1), jpeg(2)], ["one", "two"])
    others = looks([jpeg(3), jpeg(2)], ["three", "again"])
    found = duplicates.find(split, others)
    assert found.exact == [("two", "again")]
    assert found.near == []


def test_the_same_picture_at_another_quality_is_a_near_twin():
    split = looks([jpeg(1, quality=60), jpeg(2)], ["one", "two"])
    others = looks([jpeg(5), jpeg(1, quality=95)], ["five", "first"])
    found = duplicates.find(split, others)
    assert found.exact == []
    assert found.near == [("one", "first")]


def test_most_chips_of_32_pixels_are_known_again_at_quality_85_and_none_is_taken_for_another():
    chips = [Image.fromarray(draw_chip(("clear", "primary", "water"), (7, i), 32)) for i in range(80)]
    before, after = ([saved(chip, quality) for chip in chips] for quality in (95, 85))
    found = duplicates.find(looks(after), looks(before)).near
    assert len(found) >= 0.85 * len(chips)
    assert all(here == there for here, there in found)
    assert duplicates.find(looks(after[:40]), looks(before[40:])).near == []


def saved(picture, quality):
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


def test_different_pictures_are_no_twins():
    found = duplicates.find(looks([jpeg(i) for i in range(20)]), looks([jpeg(99)]))
    assert found == duplicates.Twins([], [])


def test_smooth_pictures_with_one_hash_and_other_colours_are_no_twins():
    pale, dark = (looks([jpeg(value=value)]) for value in (200, 40))
    # Not quite of one value, so that the check of dead pictures does not take them.
    for each in (pale, dark):
        each.flat[:] = False
    assert pale.hashes[0] == dark.hashes[0]
    assert duplicates.find(pale, dark).near == []


def test_black_pictures_are_left_to_the_check_that_names_them():
    black = looks([jpeg(value=0), jpeg(value=0)])
    assert duplicates.find(black, black) == duplicates.Twins([], [])


def test_a_picture_of_one_value_is_no_twin_of_one_that_is_nearly_so():
    black, nearly = looks([jpeg(value=0)]), looks([jpeg(value=1)])
    nearly.flat[:] = False
    assert duplicates.find(black, nearly) == duplicates.find(nearly, black) == duplicates.Twins([], [])


@pytest.mark.parametrize(("bits", "apart", "twins"), [(8, 3, 1), (9, 3, 0), (8, 4, 0)])
def test_twins_differ_in_a_few_bits_and_little_on_average(bits, apart, twins):
    split, others = looks([jpeg(1)]), looks([jpeg(2)])
    others.hashes[0] = split.hashes[0] ^ np.uint64(2**bits - 1)
    split.thumbs[:], others.thumbs[:] = 100, 100 + apart
    assert len(duplicates.find(split, others).near) == twins


def test_of_several_exact_twins_the_first_is_named():
    found = duplicates.find(looks([jpeg(1)], ["one"]), looks([jpeg(1), jpeg(1)], ["first", "second"]))
    assert found.exact == [("one", "first")]


def test_nothing_to_compare_with_finds_nothing():
    assert duplicates.find(looks([jpeg(1)]), Looks.empty()) == duplicates.Twins([], [])


@pytest.mark.parametrize("block", [duplicates.BLOCK, 1])
def test_of_several_near_twins_the_nearest_is_named(block, monkeypatch):
    monkeypatch.setattr(duplicates, "BLOCK", block)
    split, others = looks([jpeg(1)], ["one"]), looks([jpeg(2), jpeg(3), jpeg(4)], ["far", "near", "nearer"])
    others.hashes[:] = split.hashes[0]
    others.thumbs[1:] = np.clip(split.thumbs[0] + np.array([2, 1])[:, None, None, None], 0, 255)
    assert duplicates.find(split, others).near == [("one", "nearer")]


def test_twins_are_those_that_every_pair_compared_gives():
    rng = np.random.default_rng(0)
    split, others = looks([jpeg(i) for i in range(40)]), looks([jpeg(100 + i) for i in range(20)])
    for some in (split, others):  # of one hash, apart by about as much as twins may be, evenly or not
        some.hashes[:] = 0
        even, uneven = rng.integers(0, 12, (len(some.names), 1, 1, 3)), rng.integers(0, 5, some.thumbs.shape)
        some.thumbs[:] = 100 + even + uneven
    apart = np.abs(split.thumbs[:, None].astype(int) - others.thumbs).mean(axis=(2, 3, 4))
    twins = [
        (split.names[i], others.names[int(row.argmin())]) for i, row in enumerate(apart) if row.min() <= 3
    ]
    assert duplicates.find(split, others).near == twins
    assert 0 < len(twins) < 40


@pytest.mark.parametrize(
    ("rows", "candidates", "hashes"),
    [(3_000, 30_000, 2**63), (1_000, 5_000, 1)],
    ids=["of all kinds", "that all look alike"],
)
def test_thousands_of_pictures_take_seconds(rows, candidates, hashes):
    rng = np.random.default_rng(0)

    def many(count, at):
        return Looks(
            [f"{at}{i}" for i in range(count)],
            [b"%d-%d" % (at, i) for i in range(count)],
            rng.integers(0, hashes, count).astype(np.uint64),
            rng.integers(0, 256, (count, 8, 9, 3), np.uint8),
            np.zeros((count, 7), np.float32),
            np.zeros(count, bool),
        )

    start = time.process_time()
    assert duplicates.find(many(rows, 1), many(candidates, 2)) == duplicates.Twins([], [])
    assert time.process_time() - start < 20
