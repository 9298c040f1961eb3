"""Batches come in order, to each replica its own, and to GPUs before they are asked for."""

import dataclasses
import threading

import pytest
import tensorflow as tf

from tests.trainer import test_dataset
from tests.trainer.replicas import passes_alone, two_replicas
from trainer import dataset
from trainer.config import Config
from trainer.local import Local
from trainer.training import feeding
from trainer.training.feeding import Feeding

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
    taken: list[int] = []
    found = feeding.shared_out(numbered(9, taken), steps, PLAIN, 1, gpus)
    assert numbers(found) == [[step, step] for step in range(steps)]
    assert taken == list(range(steps)), "no more than are asked for"


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


@pytest.fixture
def fed(tmp_path):
    """Two epochs, the first of them of smaller images, and how each split is read."""
    config = Config(data="", model_dir="", epochs=2, early_epochs=1, early_image_size=32, image_size=64)
    training = test_dataset.reading(test_dataset.write_shards(tmp_path, [7, 6]))
    validating = dataclasses.replace(training, shards=training.shards[:1], shuffle=False)
    return Feeding(config, training, validating, PLAIN), training, validating


def listed(batches):
    return [(images.shape[1], test_dataset.numbers(labels.numpy()).tolist()) for images, labels, _ in batches]


def test_each_epoch_and_each_validation_reads_its_own(fed):
    feeder, training, validating = fed
    for epoch, size in ((0, 32), (1, 64)):
        for found, reading in ((feeder.training(epoch, 0), training), (feeder.validation(epoch), validating)):
            sized = dataclasses.replace(reading, image_size=size)
            assert listed(found) == listed(dataset.iterate(sized, epoch))


def test_an_epoch_can_be_entered_within_and_a_validation_come_first(fed):
    feeder, training, validating = fed
    assert listed(feeder.validation(0)) == listed(dataset.iterate(validating))
    sized = dataclasses.replace(training, image_size=64)
    assert listed(feeder.training(1, 2)) == listed(dataset.iterate(sized, 1))[2:]


def test_the_next_reader_is_made_while_the_one_before_is_in_use(fed, monkeypatch):
    feeder, training, validating = fed
    made, iterate = [], dataset.iterate

    def noted(reading, epoch, first_step):
        made.append((reading.shards, epoch, threading.current_thread() is threading.main_thread()))
        return iterate(reading, epoch, first_step)

    monkeypatch.setattr(dataset, "iterate", noted)
    for epoch in (0, 1):
        assert len(listed(feeder.training(epoch, 0))) == training.steps
        assert len(listed(feeder.validation(epoch))) == validating.steps
    expected = [(reading.shards, epoch) for epoch in (0, 1) for reading in (training, validating)]
    assert [each[:2] for each in made] == expected, "each once, and none after the last"
    assert [ahead for *_, ahead in made] == [True, False, False, False]
