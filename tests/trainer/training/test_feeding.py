"""Batches come in order, to each replica its own, and to GPUs before they are asked for."""

import threading

import pytest
import tensorflow as tf

from tests.trainer.replicas import passes_alone, two_replicas
from trainer.local import Local
from trainer.training import feeding

PLAIN = Local(tf.distribute.get_strategy())
HERE = ("/CPU:0",)


def numbered(count, taken=None):
    """Batches of one number each; notes which were taken."""
    for number in range(count):
        if taken is not None:
            taken.append(number)
        yield tf.constant([number], tf.uint8), tf.constant([float(number)])


def numbers(steps):
    return [[int(part[0]) for part in step] for step in steps]


@pytest.mark.parametrize("gpus", [(), HERE])
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_each_step_gets_its_own_batch(gpus, steps):
    found = feeding.shared_out(numbered(steps), steps, PLAIN, 1, gpus)
    assert numbers(found) == [[step, step] for step in range(steps)]


@pytest.mark.parametrize(("gpus", "ahead"), [((), 0), (HERE, feeding.AHEAD)])
def test_batches_are_taken_ahead_for_gpus_alone(gpus, ahead):
    taken: list[int] = []
    reached = threading.Event()

    def batches():
        for batch in numbered(9, taken):
            if len(taken) == 1 + ahead:
                reached.set()
            yield batch

    found = feeding.shared_out(batches(), 9, PLAIN, 1, gpus)
    next(found)
    assert reached.wait(10)
    assert len(taken) == 1 + ahead
    del found


@pytest.mark.parametrize("gpus", [(), HERE])
def test_what_is_wrong_with_a_batch_is_raised_when_its_step_comes(gpus):
    def batches():
        yield from numbered(2)
        raise ZeroDivisionError

    found = feeding.shared_out(batches(), 5, PLAIN, 1, gpus)
    assert numbers([next(found), next(found)]) == [[0, 0], [1, 1]]
    with pytest.raises(ZeroDivisionError):
        next(found)


def _feed_two_replicas():
    strategy = two_replicas()
    local, gpus = Local(strategy), strategy.extended.worker_devices
    for images, labels in feeding.shared_out(numbered(6), 3, local, 2, gpus):
        for values in (images, labels):
            first, second = local.parts(values)
            assert int(second[0]) == int(first[0]) + 1
            assert [first.device[-5:], second.device[-5:]] == ["CPU:0", "CPU:1"]


def test_each_replicas_batch_comes_to_its_own_device():
    assert passes_alone(_feed_two_replicas)
