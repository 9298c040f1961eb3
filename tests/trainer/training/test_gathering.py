"""What every worker says, told to all of them."""

from types import SimpleNamespace

import pytest
import tensorflow as tf

from trainer.cluster import Place
from trainer.training import gathering


def told(said, replicas, gather=gathering.rows):
    """What each worker is told where all say something, with as many replicas each."""
    parts = {}

    def of(index):
        def reduce(operation, part, axis):
            assert (operation, axis) == (tf.distribute.ReduceOp.SUM, None)
            parts[index] = [part] * replicas
            return sum(each for several in parts.values() for each in several)

        strategy = SimpleNamespace(
            num_replicas_in_sync=len(said) * replicas, run=lambda function: function(), reduce=reduce
        )
        return gather(strategy, Place(index, tuple("abc"[: len(said)])), said[index])

    for index in range(len(said)):  # none is told before the last has said something
        of(index)
    return [of(index) for index in range(len(said))]


@pytest.mark.parametrize("replicas", [1, 6])  # six sixths are less than one
def test_all_are_told_the_same_whole_numbers_in_the_workers_order(replicas):
    said = [[0, 7], [2**32 - 1, 1], [10**12 + 1, 0]]
    assert told(said, replicas) == [said] * 3


def test_a_single_number_is_told_as_such():
    assert told([5, 6], 2, gathering.numbers) == [[5, 6]] * 2
