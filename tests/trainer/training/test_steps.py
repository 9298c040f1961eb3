"""What replicas compute together, on one replica: which variables move, which rows come back."""

import dataclasses
import tempfile

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.untrained import tell_pictures_apart
from trainer import devices, model
from trainer.config import Config
from trainer.network import augmentation
from trainer.training.steps import Steps

CLASSES = 3
SMALL = Config(
    data="", model_dir="", image_size=32, alpha=0.35, weights="none", epochs=4, fine_tune_from_epoch=1
)


def made(config):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        network = model.build(config, CLASSES, [0.3] * CLASSES, None)
        optimizer = model.optimizer(config, 10)
        optimizer.build(network.trainable_variables)
    return network, Steps(config, strategy, network, optimizer)


@pytest.fixture(scope="module")
def small():
    return made(dataclasses.replace(SMALL, augment="none"))


def batch(seed, weights=(0.25,) * 4):
    drawn = np.random.default_rng(seed)
    images = drawn.integers(0, 256, (4, 32, 32, 3), np.uint8)
    labels = drawn.integers(0, 2, (4, CLASSES)).astype(np.float32)
    return tuple(map(tf.constant, (images, labels, np.asarray(weights, np.float32))))


def moved(network, act):
    """Which of head and backbone an action changes: parameters and statistics alike."""
    before = [v.numpy() for v in network.variables]
    act()
    found = set()
    for variable, value in zip(network.variables, before, strict=True):
        if not np.array_equal(variable.numpy(), value):
            found.add("head" if variable.name.startswith("logits") else "backbone")
    return found


def test_the_head_alone_trains_until_the_epoch_of_fine_tuning(small):
    network, steps = small
    seed, stop = tf.constant([0, 1]), tf.constant(0.0)
    for step in range(2):  # the first step of a warm-up moves nothing
        steps.enter(0)
        in_the_first = moved(network, lambda step=step: steps.train(*batch(step), seed, stop))
    assert in_the_first == {"head"}
    steps.enter(1)
    assert moved(network, lambda: steps.train(*batch(2), seed, stop)) == {"head", "backbone"}


def test_a_backbone_may_stay_frozen_for_ever():
    network, steps = made(dataclasses.replace(SMALL, fine_tune_from_epoch=-1))
    steps.enter(3)
    for step in range(2):
        found = moved(network, lambda step=step: steps.train(*batch(step), [0, 1], tf.constant(0.0)))
    assert found == {"head"}


def test_a_step_tells_the_loss_of_what_is_no_padding_and_stop(small):
    network, steps = small
    steps.enter(0)
    images, labels, weights = batch(5, weights=(0.1, 0.2, 0.3, 0.4))
    scores = tf.sigmoid(network(tf.cast(images, tf.float32), training=False)).numpy()
    losses = -np.log(np.where(labels, scores, 1 - scores)).mean(axis=1)
    told = steps.train(images, labels, weights, tf.constant([0, 1]), tf.constant(1.0)).numpy()
    np.testing.assert_allclose(told, [losses @ weights.numpy(), 1], rtol=1e-4)
    padding = batch(5, weights=(0,) * 4)
    assert steps.train(*padding, tf.constant([0, 1]), tf.constant(0.0)).numpy().tolist() == [0, 0]


def test_a_gpu_gets_pictures_of_floats_to_turn_and_the_step_stays_the_same(monkeypatch):
    seen = []

    def looked_at(images, *rest):
        seen.append(images.dtype)
        return augment(images, *rest)

    augment = augmentation.augment
    monkeypatch.setattr(augmentation, "augment", looked_at)
    results = []
    for found in ([], ["a GPU"]):
        monkeypatch.setattr(devices, "gpus", lambda found=found: found)
        tf.keras.utils.set_random_seed(0)
        _, steps = made(SMALL)
        results.append(steps.train(*batch(5), tf.constant([0, 1]), tf.constant(0.0)).numpy())
    assert seen == [tf.uint8, tf.float32]
    assert results[0] == pytest.approx(results[1], rel=1e-6)


def test_tracing_leaves_no_files_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _, steps = made(dataclasses.replace(SMALL, augment="affine", mixup=0.2, dropout=0.1))
    steps.train(*batch(5), tf.constant([0, 1]), tf.constant(0.0))
    steps.score([batch(6)])
    steps.agree()
    assert list(tmp_path.iterdir()) == []


def heads(rate, numbers):
    """The same new network's head after one step, for each number that the step may have."""
    tf.keras.utils.set_random_seed(0)
    network, steps = made(dataclasses.replace(SMALL, dropout=rate))
    state = [*network.variables, *steps._optimizer.variables]
    kept, found = [v.numpy() for v in state], []
    for number in numbers:
        for variable, value in zip(state, kept, strict=True):
            variable.assign(value)
        steps.train(*batch(5), tf.constant([0, number]), tf.constant(0.0))
        found.append(network.get_layer("logits").kernel.numpy())
    return found


def test_what_dropout_leaves_out_depends_on_the_step_alone():
    first, again, other = heads(0.5, [1, 1, 2])
    (whole,) = heads(0.0, [1])
    np.testing.assert_array_equal(again, first)  # as in a run that was resumed there
    assert not np.array_equal(other, first)
    assert not np.array_equal(whole, first)


def test_a_split_is_scored_without_its_padding(small):
    network, steps = small
    tell_pictures_apart(network)
    batches = [batch(7), batch(8, weights=(0.5, 0.5, 0, 0))]
    table = steps.score(iter(batches))
    images = tf.concat([batches[0][0], batches[1][0][:2]], axis=0)
    labels = np.concatenate([batches[0][1], batches[1][1][:2]])
    expected = tf.sigmoid(network(tf.cast(images, tf.float32), training=False))
    np.testing.assert_allclose(table[:, :CLASSES], expected, atol=1e-5)
    np.testing.assert_array_equal(table[:, CLASSES:-1], labels)


def test_starting_alike_leaves_the_chief_as_it_is(small):
    network, steps = small
    assert moved(network, steps.start_alike) == set()


@pytest.fixture(scope="module")
def plain():
    return made(dataclasses.replace(SMALL, fine_tune_from_epoch=0))


@pytest.mark.parametrize("changed", [{"loss": "asymmetric"}, {"mixup": 0.4}])
def test_the_loss_and_what_it_is_taken_of_may_be_chosen(plain, changed):
    network, steps = made(dataclasses.replace(SMALL, fine_tune_from_epoch=0, **changed))
    for mine, its in zip(network.variables, plain[0].variables, strict=True):
        mine.assign(its.numpy())
    seed, stop = tf.constant([1, 1]), tf.constant(0.0)
    chosen, usual = (float(each.train(*batch(5), seed, stop)[0]) for each in (steps, plain[1]))
    assert np.isfinite(chosen)
    assert chosen != usual
    assert moved(network, lambda: steps.train(*batch(6), seed, stop)) == {"head", "backbone"}
