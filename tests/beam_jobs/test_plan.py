"""Which name goes to which split and shard."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_jobs import plan

NAMES = st.lists(st.text(max_size=12), max_size=80, unique=True)
FRACTIONS = st.lists(st.integers(1, 20), min_size=1, max_size=5).map(lambda w: [x / sum(w) for x in w])


@given(NAMES, st.integers(), FRACTIONS)
def test_every_name_is_in_one_split_and_adding_names_moves_none(
    names: list[str], seed: int, fractions: list[float]
) -> None:
    some = names[: len(names) // 2]
    few = plan.split_of(plan.digests(some, seed), fractions)
    many = plan.split_of(plan.digests(names, seed), fractions)
    assert few.tolist() == many[: len(some)].tolist()
    assert ((many >= 0) & (many < len(fractions))).all()


def test_splits_get_their_fractions() -> None:
    digest = plan.digests((f"train_{i}" for i in range(50_000)), 0)
    counts = np.bincount(plan.split_of(digest, [0.7, 0.2, 0.1]))
    # Three standard deviations of a binomial count are 307, 268 and 201.
    assert np.abs(counts - [35_000, 10_000, 5_000]).max() < 310


@pytest.mark.parametrize("fractions", [[0.5, 0.499999], [1.0, 1e-20]], ids=["less than 1", "all in one"])
def test_the_last_split_takes_what_rounding_leaves(fractions: list[float]) -> None:
    last = np.array([[2**64 - 1, 0]], np.uint64)
    assert plan.split_of(last, fractions).tolist() == [1]


def test_there_may_be_hundreds_of_splits() -> None:
    digest = plan.digests((f"train_{i}" for i in range(30_000)), 0)
    counts = np.bincount(plan.split_of(digest, [1 / 300] * 300), minlength=300)
    assert len(counts) == 300
    assert counts.min() > 50


@given(NAMES, st.integers(0, 3))
def test_the_order_is_a_permutation_that_the_names_alone_decide(names: list[str], seed: int) -> None:
    digest = plan.digests(names, seed)
    order = plan.shuffled(digest)
    assert sorted(order.tolist()) == list(range(len(names)))
    backwards = names[::-1]
    again = plan.shuffled(plan.digests(backwards, seed))
    assert [names[i] for i in order] == [backwards[i] for i in again]


def test_the_order_is_shuffled_and_another_seed_gives_another() -> None:
    names = [f"train_{i}" for i in range(2000)]
    one, two = (plan.shuffled(plan.digests(names, seed)) for seed in (0, 1))
    ranks = np.arange(2000)
    for a, b in ((one, ranks), (two, ranks), (one, two)):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.1  # 4.5 standard deviations


def test_split_and_order_are_unrelated() -> None:
    digest = plan.digests((f"train_{i}" for i in range(20_000)), 0)
    validation = plan.split_of(digest, [0.9, 0.1])[plan.shuffled(digest)]
    halves = validation[:10_000].sum(), validation[10_000:].sum()
    assert abs(int(halves[0]) - int(halves[1])) < 200  # 4.7 standard deviations


def test_the_plan_is_the_same_on_every_machine() -> None:
    digest = plan.digests(["train_0", "file_7", "ünïcode", "\udcff"], 0)
    assert [f"{value:016x}" for value in digest[:, 0]] == [
        "8d14437384d0c06c",
        "900b57d8ce4513e8",
        "f6c67580686d6a96",
        "654fe9b9ffee757d",
    ]


@given(
    st.lists(st.sampled_from("abcdefgh"), max_size=30), st.lists(st.sampled_from("abcdefghij"), max_size=30)
)
def test_find_finds_the_first_of_equal_names(wanted: list[str], among: list[str]) -> None:
    found = plan.find(plan.digests(wanted, 5), plan.digests(among, 5))
    assert found.tolist() == [among.index(name) if name in among else -1 for name in wanted]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=20, unique=True), st.data())
def test_find_tells_names_apart_that_share_half_a_hash(
    pairs: list[tuple[int, int]], data: st.DataObject
) -> None:
    among = np.array(pairs, np.uint64).reshape(-1, 2)
    wanted = data.draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=20))
    found = plan.find(np.array(wanted, np.uint64).reshape(-1, 2), among)
    assert found.tolist() == [pairs.index(pair) if pair in pairs else -1 for pair in wanted]


@given(st.lists(st.sampled_from("abcdefgh"), max_size=30))
def test_repeated_names_are_found_in_groups(names: list[str]) -> None:
    digest = plan.digests(names, 0)
    groups = {tuple(group.tolist()) for group in plan.repeated(digest, plan.shuffled(digest))}
    assert groups == {
        tuple(i for i, other in enumerate(names) if other == name) for name in names if names.count(name) > 1
    }


@given(st.integers(0, 10_000), st.integers(1, 300))
def test_slices_are_equal_within_one_and_lose_nothing(records: int, shards: int) -> None:
    edges = plan.bounds(records, shards)
    sizes = np.diff(edges)
    assert edges[0] == 0
    assert edges[-1] == records
    assert len(sizes) == shards
    assert sizes.max() - sizes.min() <= 1


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30))
def test_balancing_loses_and_doubles_nothing_and_moves_no_more_than_it_must(records: list[int]) -> None:
    keep, moves = plan.balance(records)
    shards = [[(i, j) for j in range(keep[i])] for i in range(len(records))]
    for move in moves:
        shards[move.taker] += [(move.giver, move.first + j) for j in range(move.count)]
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1
    everything = sorted(record for shard in shards for record in shard)
    assert everything == sorted((i, j) for i, n in enumerate(records) for j in range(n))
    base, more = divmod(sum(records), len(records))
    least = sum(max(n - base, 0) for n in records) - min(more, sum(n > base for n in records))
    assert sum(move.count for move in moves) == least


@given(st.integers(0, 10**7), st.floats(1, 1e6), st.floats(0.001, 1000))
def test_the_number_of_shards_keeps_them_under_the_size_asked_for(
    images: int, record_bytes: float, shard_mb: float
) -> None:
    shards = plan.shard_count(images, record_bytes, shard_mb)
    assert shards >= 1
    assert images * record_bytes / shards <= shard_mb * 1e6 * 1.000001


def test_small_archives_get_shards_enough_for_all_cores_and_not_too_many() -> None:
    assert plan.shard_count(0, 1, 128) == 1
    assert plan.shard_count(64, 1, 128) == 1
    assert plan.shard_count(1200, 9000, 128) == 16
    assert plan.shard_count(40_000, 9000, 128) == 16
    assert plan.shard_count(4_000_000, 9000, 128) == 282


def test_a_shard_of_less_than_a_byte_is_one_of_a_byte() -> None:
    assert plan.shard_count(10, 9000, 1e-320) == plan.shard_count(10, 9000, 1e-6) == 90_000


@settings(max_examples=50)
@given(st.integers(1, 200), st.integers(0, 5000), st.integers(1, 5000))
def test_other_splits_get_shards_in_proportion_and_no_shard_is_empty(
    shards: int, small: int, large: int
) -> None:
    counts = plan.shard_counts({"train": large, "validation": small}, "train", shards)
    assert counts["train"] == min(shards, large)
    assert 1 <= counts["validation"] <= max(small, 1)
    assert abs(counts["validation"] - max(1, min(shards * small / large, small))) <= 0.5
