"""Counts and lists in sentences."""

import pytest

from canopy.phrases import named, rate, several


def test_things_are_counted_in_words() -> None:
    assert [several(count, "shard") for count in (0, 1, 1000)] == ["0 shards", "1 shard", "1,000 shards"]


@pytest.mark.parametrize(
    ("names", "told"), [("a", "a"), ("abcde", "a, b, c, d, e"), ("abcdefgh", "a, b, c, d, e and 3 more")]
)
def test_a_long_list_is_cut_and_counted(names, told):
    assert named([*names]) == told


@pytest.mark.parametrize(
    ("count", "seconds", "told"),
    [
        (31_402, 10, "3,140"), (104, 10, "10"), (42, 10, "4.2"), (20, 10, "2"),
        (3, 90, "0.033"), (60, 0.5, "120"), (0, 10, "0"), (0, 0, "0"),
    ],
)  # fmt: skip
def test_a_rate_of_large_pictures_is_not_rounded_to_nothing(count: int, seconds: float, told: str) -> None:
    assert rate(count, seconds) == told
