"""Twins across splits: found where they are, and only there."""

import time

import numpy as np

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


def test_nothing_to_compare_with_finds_nothing():
    assert duplicates.find(looks([jpeg(1)]), Looks.empty()) == duplicates.Twins([], [])


def test_three_thousand_against_thirty_thousand_takes_seconds():
    rng = np.random.default_rng(0)

    def many(count, at):
        return Looks(
            [f"{at}{i}" for i in range(count)],
            [b"%d-%d" % (at, i) for i in range(count)],
            rng.integers(0, 2**63, count).astype(np.uint64),
            rng.integers(0, 256, (count, 8, 9, 3), np.uint8),
            np.zeros((count, 3), np.float32),
            np.zeros(count, bool),
        )

    start = time.process_time()
    assert duplicates.find(many(3_000, 1), many(30_000, 2)) == duplicates.Twins([], [])
    assert time.process_time() - start < 20
