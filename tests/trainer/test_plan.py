"""How streams share an epoch: no record lost or doubled, whatever the numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer import plan

COUNTS = st.lists(st.integers(0, 40), min_size=1, max_size=12)


@given(counts=COUNTS, streams=st.integers(1, 9), seed=st.integers(0, 99), epoch=st.integers(0, 99))
def test_the_streams_parts_hold_every_record_once(counts, streams, seed, epoch):
    order = plan.epoch_order(len(counts), seed, epoch)
    seen = [
        (part.shard, part.skip + i)
        for number in range(streams)
        for part in plan.stream_parts(counts, order, streams, number)
        for i in range(part.take)
    ]
    assert sorted(seen) == [(shard, i) for shard, count in enumerate(counts) for i in range(count)]


def test_shards_are_read_in_the_epochs_order_and_an_empty_one_not_at_all():
    parts = plan.stream_parts([3, 0, 2], [2, 1, 0], 2, 0)
    assert parts == [plan.Part(2, 0, 2)]
    assert plan.stream_parts([3, 0, 2], [2, 1, 0], 1, 0) == [*parts, plan.Part(0, 0, 3)]


@given(counts=COUNTS, streams=st.integers(1, 9))
def test_no_stream_has_more_than_one_record_above_another(counts, streams):
    order = range(len(counts))
    sizes = [sum(p.take for p in plan.stream_parts(counts, order, streams, i)) for i in range(streams)]
    assert max(sizes) - min(sizes) <= 1


@given(total=st.integers(1, 500), streams=st.integers(1, 9), batch=st.integers(1, 40))
def test_every_record_counts_in_one_step(total, streams, batch):
    valid = plan.valid_records(total, streams, batch)
    assert len(valid) == plan.steps_per_epoch(total, streams, batch)
    assert valid.sum() == total
    assert (valid > 0).all()
    assert (valid <= streams * batch).all()


@given(total=st.integers(1, 500), streams=st.integers(1, 9), batch=st.integers(1, 40))
def test_in_each_step_as_many_records_count_as_the_streams_have_left(total, streams, batch):
    left = [sum(p.take for p in plan.stream_parts([total], [0], streams, i)) for i in range(streams)]
    for counted in plan.valid_records(total, streams, batch).tolist():
        taken = [min(batch, each) for each in left]
        assert counted == sum(taken)
        left = [each - took for each, took in zip(left, taken, strict=True)]


@pytest.mark.parametrize(
    ("batch", "workers", "streams"),
    [
        (64, 1, 8),
        (64, 2, 8),
        (64, 8, 8),
        (64, 16, 16),
        (6, 1, 6),
        (6, 2, 6),
        (22, 1, 2),
        (192, 3, 3),
        (7, 1, 7),
    ],
)
def test_an_epoch_is_cut_into_as_many_streams_for_any_number_of_workers_that_can_share_them(
    batch, workers, streams
):
    assert plan.streams(batch, workers) == streams


@given(batch=st.integers(1, 12), replicas=st.integers(1, 12), other=st.integers(1, 12))
def test_streams_share_every_global_batch_and_are_shared_by_the_workers(batch, replicas, other):
    streams = plan.streams(batch * replicas, replicas)
    assert batch * replicas % streams == 0
    assert streams % replicas == 0
    if batch * replicas % other == 0 and plan.streams(batch * replicas, 1) % replicas == 0:
        assert plan.streams(batch * replicas, other) in (streams, other)


@given(total=st.integers(0, 500), streams=st.integers(1, 20))
def test_a_stream_holds_the_records_of_its_parts(total, streams):
    counts = [total // 3, total - total // 3]
    for number in range(streams):
        parts = plan.stream_parts(counts, [1, 0], streams, number)
        assert plan.stream_records(total, streams, number) == sum(part.take for part in parts)


def test_epochs_differ_in_order_and_repeat_with_the_seed():
    orders = [tuple(plan.epoch_order(20, 0, epoch)) for epoch in range(5)]
    assert len(set(orders)) == 5
    assert orders == [tuple(plan.epoch_order(20, 0, epoch)) for epoch in range(5)]
    assert orders != [tuple(plan.epoch_order(20, 1, epoch)) for epoch in range(5)]


def test_the_order_is_the_same_on_every_machine_so_that_a_run_goes_on_elsewhere():
    assert plan.epoch_order(6, 0, 1) == [2, 0, 1, 5, 3, 4]
    assert plan.epoch_order(6, 1, 0) == [2, 1, 0, 4, 3, 5]
