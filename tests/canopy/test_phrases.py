"""Counts and lists in sentences."""

from canopy.phrases import named, several


def test_things_are_counted_in_words() -> None:
    assert [several(count, "shard") for count in (0, 1, 1000)] == ["0 shards", "1 shard", "1,000 shards"]


def test_a_long_list_is_cut_and_counted():
    assert named([str(i) for i in range(8)]) == "0, 1, 2, 3, 4 and 3 more"
