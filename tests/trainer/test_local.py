"""A worker's own values: all its replicas get them, and none of the ways to read them differs."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tests.trainer.replicas import passes_alone, two_replicas
from trainer.local import Local, making_variables


@pytest.fixture
def strategy():
    return tf.distribute.MirroredStrategy(["CPU:0"])


def test_a_plain_variable_is_read_and_set():
    local, plain = Local(tf.distribute.get_strategy()), tf.Variable([1.0, 2.0])
    local.give(plain, np.array([3, 4], np.float32))
    assert local.value(plain).tolist() == plain.numpy().tolist() == [3, 4]


@pytest.mark.parametrize("synchronization", ["AUTO", "ON_READ"])
def test_a_distributed_variable_is_set_on_all_replicas_of_this_worker(strategy, synchronization):
    with strategy.scope():
        variable = tf.Variable(
            [1.0, 2.0],
            synchronization=tf.VariableSynchronization[synchronization],
            aggregation=tf.VariableAggregation.MEAN,
        )
    local = Local(strategy)
    local.give(variable, np.array([3, 4], np.float32))
    assert local.value(variable).tolist() == [3, 4]
    seen = strategy.experimental_local_results(strategy.run(lambda: variable + 0))
    assert [each.numpy().tolist() for each in seen] == [[3, 4]] * strategy.num_replicas_in_sync


def test_another_shape_is_refused(strategy):
    with strategy.scope():
        variable = tf.Variable(tf.zeros([2]))
    with pytest.raises(ValueError, match="shape"):
        Local(strategy).give(variable, np.zeros(3, np.float32))


def _make_on_two_replicas():
    strategy = two_replicas()
    values = iter([1.0, 2.0, 3.0, 4.0])
    with making_variables(strategy):
        weight = tf.Variable(lambda: next(values))
        statistic = tf.Variable(
            lambda: next(values),
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.MEAN,
        )
    local = Local(strategy)
    assert [part.numpy() for part in local.parts(weight)] == [1, 2]
    assert [part.numpy() for part in local.parts(statistic)] == [3, 4]
    assert statistic.numpy() == local.value(statistic) == 3
    local.give(weight, np.array(5, np.float32))
    assert [part.numpy() for part in local.parts(weight)] == [5, 5]


def test_each_replica_begins_with_a_value_of_its_own():
    assert passes_alone(_make_on_two_replicas)


def _initialize_on_two_replicas():
    warnings.simplefilter("error")
    with making_variables(two_replicas()):
        tf_keras.layers.Dense(2).build((None, 3))


def test_nothing_is_said_of_an_initializer_that_serves_several_replicas():
    assert passes_alone(_initialize_on_two_replicas)


def _spread_over_two_replicas():
    strategy = two_replicas()
    local = Local(strategy)
    spread = local.spread([tf.constant(3), tf.constant(4)])
    assert [part.numpy() for part in local.parts(strategy.run(lambda each: each + 1, (spread,)))] == [4, 5]


def test_each_replica_is_given_its_own_value():
    assert passes_alone(_spread_over_two_replicas)


def test_plain_variables_are_made_where_there_is_no_strategy_to_speak_of():
    with making_variables(tf.distribute.get_strategy()):
        made = tf_keras.layers.Dense(2, kernel_initializer="ones")
        made.build((None, 3))
    assert made.kernel.numpy().tolist() == [[1, 1]] * 3
