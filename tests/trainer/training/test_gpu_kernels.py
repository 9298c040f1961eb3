"""Whether TensorFlow has each operation of a step for GPUs, which the package knows without one."""

import dataclasses
from collections import defaultdict
from functools import partial

import pytest
import tensorflow as tf
import tf_keras
from tensorflow.python.framework import kernels

from tests.trainer.replicas import passes_alone, two_replicas
from trainer import devices, model
from trainer.config import Config
from trainer.training.steps import Steps

CLASSES = 3
PLAIN = Config(data="", model_dir="", image_size=32, alpha=0.35, weights="none")
RICH = dataclasses.replace(PLAIN, augment="affine", mixup=0.2, dropout=0.1, loss="asymmetric")
BATCH = (
    tf.TensorSpec([4, 32, 32, 3], tf.uint8),
    tf.TensorSpec([4, CLASSES]),
    tf.TensorSpec([4]),
    tf.TensorSpec([2], tf.int32),
    tf.TensorSpec([]),
)


def _trace(config, policy):
    """Traces steps whose replica is on CPU:1 in the place of a GPU, and looks its operations up."""
    two_replicas()
    devices.gpus = lambda: ["a GPU"]
    tf_keras.mixed_precision.set_global_policy(policy)
    strategy = tf.distribute.MirroredStrategy(["CPU:1"])
    with strategy.scope():
        network = model.build(config, CLASSES, [0.3] * CLASSES, None)
        optimizer = model.optimizer(config, 10)
        optimizer.build(network.trainable_variables)
    steps = Steps(config, strategy, network, optimizer)
    known = defaultdict(list)
    for kernel in kernels.get_all_registered_kernels().kernel:
        if kernel.device_type in ("GPU", "DEFAULT") and not kernel.label:
            known[kernel.op].append(kernel)
    found = []
    for graph in (steps.train.get_concrete_function(*BATCH), steps._score.get_concrete_function(*BATCH[:3])):
        definition = graph.graph.as_graph_def()
        inner = (node for function in definition.library.function for node in function.node_def)
        found += [node for node in (*definition.node, *inner) if node.device.endswith("CPU:1")]
    assert {"Conv2D", "ResourceApplyAdam", "Transpose"} <= {node.op for node in found}
    lacking = {
        (node.op, tf.as_dtype(node.attr["T"].type).name if node.attr["T"].type else "")
        for node in found
        if node.op != "Placeholder" and not any(_fits(kernel, node) for kernel in known[node.op])
    }
    assert not lacking, lacking


def _fits(kernel, node):
    return all(
        set(node.attr[each.name].list.type or [node.attr[each.name].type])
        <= set(each.allowed_values.list.type)
        for each in kernel.constraint
    )


@pytest.mark.skipif(not tf.test.is_built_with_cuda(), reason="TensorFlow was built without kernels for GPUs")
@pytest.mark.parametrize(
    ("config", "policy"),
    [(PLAIN, "float32"), (RICH, "mixed_bfloat16"), (PLAIN, "mixed_float16")],
    ids=["float32", "rich in bfloat16", "float16"],
)
def test_a_gpu_computes_all_of_a_step(config, policy):
    assert passes_alone(partial(_trace, config, policy))
