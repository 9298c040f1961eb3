"""The moving average of the weights: what it is, when it stands in for them, and what it leaves alone."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tests.trainer.replicas import passes_alone, two_replicas
from trainer.network.averaging import EVERY, Average


@pytest.fixture
def strategy():
    return tf.distribute.MirroredStrategy(["CPU:0"])


def followed(strategy, decay, epoch=1000):
    """A network with statistics of its own, and its average."""
    with strategy.scope():
        network = tf_keras.Sequential(
            [tf_keras.layers.Dense(2, input_shape=(3,)), tf_keras.layers.BatchNormalization()]
        )
        return network, Average(decay, strategy, network, epoch)


def set_all(network, value):
    for variable in network.variables:
        variable.assign(tf.fill(variable.shape, float(value)))


def averages(average):
    return [each.numpy() for each in average.variables]


def test_it_is_the_exponential_average_of_what_it_followed(strategy):
    network, average = followed(strategy, 0.9)
    expected = 0.0
    for update in range(40):
        set_all(network, update)
        average.follow(update * EVERY or 1)
        decay = min(0.9**EVERY, update / (update + 9))
        expected = decay * expected + (1 - decay) * update
    for value in averages(average):
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_the_first_weights_are_taken_as_they_are(strategy):
    network, average = followed(strategy, 0.999)
    set_all(network, 7)
    average.follow(1)
    assert all((value == 7).all() for value in averages(average))


def test_steps_in_between_change_nothing(strategy):
    network, average = followed(strategy, 0.999)
    for step in range(1, EVERY):
        set_all(network, step)
        average.follow(step)
    assert all((value == 1).all() for value in averages(average))


def test_the_end_of_an_epoch_is_not_left_out(strategy):
    network, average = followed(strategy, 0.9, epoch=EVERY - 2)
    average.follow(1)
    set_all(network, 7)
    average.follow(EVERY - 2)  # a run may end before it is anybody's turn
    for value in averages(average):
        np.testing.assert_allclose(value, 7, rtol=1e-5)
    set_all(network, 8)
    average.follow(7 * (EVERY - 2))  # its turn was two steps before
    decay = min(0.9**2, 5 / 14)
    for value in averages(average):
        np.testing.assert_allclose(value, decay * 7 + (1 - decay) * 8, rtol=1e-5)


@pytest.mark.parametrize("epoch", [1, 3, 7, EVERY, 1000])
def test_a_step_decays_it_once_however_often_epochs_end(strategy, epoch):
    network, average = followed(strategy, 0.99, epoch)
    set_all(network, 1)
    average.follow(1)
    set_all(network, 0)
    late = 1000 * EVERY  # where the decay has long been its own
    for step in range(late + 1, late + 6 * EVERY + 1):
        average.follow(step)
    for value in averages(average):
        np.testing.assert_allclose(value, 0.99 ** (6 * EVERY), rtol=1e-4)


def test_the_network_holds_the_average_for_a_while_and_its_own_weights_afterwards(strategy):
    network, average = followed(strategy, 0.999)
    set_all(network, 3)
    average.follow(1)
    set_all(network, 5)
    with average.in_place():
        assert all((v.numpy() == 3).all() for v in network.variables)
    assert all((v.numpy() == 5).all() for v in network.variables)


def test_its_own_weights_come_back_after_an_error(strategy):
    network, average = followed(strategy, 0.999)
    set_all(network, 5)

    def fail():
        with average.in_place():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert all((v.numpy() == 5).all() for v in network.variables)


def test_without_a_decay_there_is_none_and_the_network_stays(strategy):
    network, average = followed(strategy, 0.0)
    set_all(network, 5)
    average.follow(1)
    assert average.variables == average.statistics == []
    with average.in_place():
        assert all((v.numpy() == 5).all() for v in network.variables)


def test_the_replicas_own_statistics_are_told_apart(strategy):
    _, average = followed(strategy, 0.9)
    assert len(average.variables) == 6  # kernel, bias, gamma, beta, mean, variance
    assert len(average.statistics) == 2


def _follow_on_two_replicas():
    strategy = two_replicas()
    _, average = followed(strategy, 0.9)
    graph = average._move.get_concrete_function(tf.TensorSpec([], tf.float32)).graph
    assert {op.device[-5:] for op in graph.get_operations() if op.type == "Sub"} == {"CPU:0", "CPU:1"}
    told: list[tf.Tensor] = []
    average._move = told.append
    with tf.device("/CPU:1"):  # as on a GPU, which TensorFlow takes by itself
        average.follow(1)
    assert [share.device[-5:] for share in told] == ["CPU:0"]


def test_each_device_computes_its_own_replicas_average_and_waits_for_no_other():
    assert passes_alone(_follow_on_two_replicas)
