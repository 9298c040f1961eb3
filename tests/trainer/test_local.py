"""A worker's own values: all its replicas get them, and none of the ways to read them differs."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.local import Local


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
