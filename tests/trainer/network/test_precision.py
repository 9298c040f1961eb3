"""The type a network computes in, and what keeps bfloat16 fast on a CPU."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from canopy import cli, machine
from tests.conftest import SMALLEST
from trainer import model
from trainer.config import Config
from trainer.network import precision

SMALL = Config(data="", model_dir="", image_size=32, alpha=0.35, weights="none")
PRIOR = (0.1, 0.5, 0.9)
DEPTHWISE = tf_keras.layers.DepthwiseConv2D


@pytest.fixture(autouse=True)
def float32_afterwards():
    yield
    tf_keras.mixed_precision.set_global_policy("float32")


@pytest.fixture
def cpu():
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")


def test_float16_has_a_scale_that_is_kept_and_other_types_have_none():
    for policy, start in (("float32", {}), ("mixed_float16", {"loss_scale": 2.0**15, "good_steps": 0})):
        tf_keras.mixed_precision.set_global_policy(policy)
        optimizer = model.optimizer(SMALL, 10)
        scale = precision.scale_of(optimizer)
        assert {name: float(variable) for name, variable in scale.items()} == start
    for variable, value in ((scale["loss_scale"], 8.0), (scale["good_steps"], 3)):  # as from a checkpoint
        variable.assign(value)
    assert (float(optimizer.loss_scale), int(optimizer.dynamic_counter)) == (8.0, 3)


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize("has_units", [False, True])
def test_a_cpu_keeps_float32_unless_it_is_asked_what_it_has_units_for(monkeypatch, has_units):
    monkeypatch.setattr(machine, "multiplies_bfloat16", lambda: has_units)
    assert precision.settle("auto") == "float32"
    assert precision.settle("native") == ("mixed_bfloat16" if has_units else "float32")
    assert tf_keras.mixed_precision.global_policy().name == ("mixed_bfloat16" if has_units else "float32")


@pytest.mark.parametrize(
    ("capability", "expected"),
    [(0, "float32"), (6, "float32"), (7, "mixed_float16"), (8, "mixed_bfloat16"), (9, "mixed_bfloat16")],
)
def test_a_gpu_gets_the_type_that_it_has_units_for(monkeypatch, capability, expected):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["a GPU"])
    details = {"compute_capability": (capability, 0)} if capability else {}  # the driver may not tell
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda _: details)
    assert precision.settle("auto") == precision.settle("native") == expected


def test_of_gpus_of_several_kinds_the_least_decides_in_one_worker_and_over_all(monkeypatch):
    kinds = {"T4": (7, 5), "L4": (8, 9), "P100": (6, 0)}
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", lambda gpu: {"compute_capability": kinds[gpu]}
    )

    def settled(*workers):
        said, types = [], []

        def gather(mine):
            said.append(mine)
            return said[: len(workers)]

        for gpus in workers * 2:  # the first round makes known what all say
            monkeypatch.setattr(tf.config, "list_physical_devices", lambda _, gpus=gpus: gpus)
            types.append(precision.settle("auto", gather))
        return types[len(workers) :]

    assert settled(["L4", "T4"]) == ["mixed_float16"]
    assert settled(["L4"], ["T4"], ["L4"]) == ["mixed_float16"] * 3
    assert settled(["T4"], ["L4"], ["P100"]) == ["float32"] * 3


@pytest.mark.slow
def test_workers_on_unlike_machines_compute_in_one_type(records, tmp_path, command, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import json, os\n"
        "from canopy import machine\n"
        "machine.multiplies_bfloat16 = lambda: json.loads(os.environ['TF_CONFIG'])['task']['index'] == 0\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    small = (*SMALLEST, "--epochs", 1, "--batch_size", 64, "--mixed_precision", "native")
    flags = ("--data", records, "--model_dir", tmp_path / "model", *small)
    done = command("trainer.launch", "--local_workers", 2, "--", *flags)
    assert done.returncode == cli.EXIT_OK, done.stderr
    assert "2 replicas on 2 workers, float32" in done.stderr


def test_a_type_that_is_named_is_taken():
    assert precision.settle("mixed_bfloat16") == "mixed_bfloat16"


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-6), ("mixed_bfloat16", 1e-2)])
def test_a_strided_convolution_has_the_gradients_of_keras_own(side, dtype, error):
    mine, keras = (
        kind(3, strides=2, padding="same", use_bias=False, depthwise_initializer="ones", dtype=dtype)
        for kind in (precision.StridedDepthwise, DEPTHWISE)
    )
    pictures = tf.random.stateless_uniform([2, side, side, 4], [1, 2], -1, 1)
    found = []
    for layer in (mine, keras):
        with tf.GradientTape() as tape:
            tape.watch(pictures)
            out = layer(pictures)
            total = tf.reduce_sum(tf.cast(out, tf.float32) * tf.random.stateless_uniform(out.shape, [3, 4]))
        found.append([out, *tape.gradient(total, [pictures, layer.depthwise_kernel])])
    for own, theirs in zip(*found, strict=True):
        assert own.dtype == theirs.dtype
        np.testing.assert_allclose(tf.cast(own, tf.float32), tf.cast(theirs, tf.float32), error, error)


@pytest.mark.usefixtures("cpu")
def test_only_the_arithmetic_is_in_bfloat16():
    precision.settle("mixed_bfloat16")
    network = model.build(SMALL, len(PRIOR), PRIOR, None)
    logits = network(tf.zeros([1, 32, 32, 3]))
    assert {each.dtype for each in (logits, *network.variables)} == {tf.float32}
    assert network.get_layer("backbone").output.dtype == tf.bfloat16


@pytest.mark.usefixtures("cpu")
def test_the_slow_gradient_is_avoided_where_it_is_slow_alone():
    for policy, expected in (("float32", 0), ("mixed_bfloat16", 4)):
        precision.settle(policy)
        backbone = model.build(SMALL, len(PRIOR), PRIOR, None).get_layer("backbone")
        assert sum(isinstance(layer, precision.StridedDepthwise) for layer in backbone.layers) == expected


@pytest.mark.parametrize(("gpus", "kind"), [([], precision.StridedDepthwise), (["a GPU"], DEPTHWISE)])
def test_a_gpu_keeps_the_gradient_that_is_fast_there(monkeypatch, gpus, kind):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: gpus)
    layer = DEPTHWISE(3, strides=2, padding="same", use_bias=False, dtype="mixed_bfloat16")
    precision.suit(layer)
    assert type(layer) is kind


def test_the_slow_operation_alone_is_computed_in_float32():
    layer = precision.StridedDepthwise(3, strides=2, padding="same", use_bias=False, dtype="mixed_bfloat16")

    @tf.function
    def gradient(pictures):
        with tf.GradientTape() as tape:
            tape.watch(pictures)
            out = layer(pictures)
        return tape.gradient(out, pictures)

    graph = gradient.get_concrete_function(tf.TensorSpec([1, 8, 8, 4], tf.bfloat16)).graph
    assert graph.structured_outputs.dtype == tf.bfloat16
    found = [each for each in graph.get_operations() if each.type.endswith("NativeBackpropInput")]
    assert [each.get_attr("T") for each in found] == [tf.float32]
