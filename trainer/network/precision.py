"""In which type a network computes: what the devices have units for, and what keeps that fast on a CPU.

Promises: all workers compute in one type, and weights, statistics and logits stay float32 whatever it is. On
a CPU the one bfloat16 operation that is many times slower than its float32 twin is avoided: TensorFlow's
gradient of a strided depthwise convolution, which takes two fifths of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from canopy import machine
from trainer import devices

# What has the units of one of these has those of all before it.
TYPES = ("float32", "mixed_float16", "mixed_bfloat16")
SINCE = ((8, "mixed_bfloat16"), (7, "mixed_float16"))  # GPU compute capability: its tensor cores' type

Gather = Callable[[int], Sequence[int]]


def settle(choice: str, gather: Gather = lambda mine: [mine]) -> str:
    """Sets Keras' precision policy and returns its name, the same on all workers.

    Of GPUs of several kinds the least decides: a step that overflows float16 is skipped by those who compute
    in it, and the others would take it.

    Args:
        choice: `--mixed_precision`. auto takes the type that the GPU has units for, and float32 on a CPU;
            native takes bfloat16 on a CPU, too, if it multiplies in it (AVX512-BF16, AMX, Arm's BF16):
            where it does not, bfloat16 is emulated and two to nine times slower.
        gather: called by every worker with a number; returns what all called it with.
    """
    if choice in ("auto", "native"):
        choice = _of_device(devices.gpus(), choice == "native")
    choice = TYPES[min(gather(TYPES.index(choice)))]
    tf_keras.mixed_precision.set_global_policy(choice)
    return choice


def _of_device(gpus: list[Any], or_cpu: bool) -> str:
    if not gpus:
        return "mixed_bfloat16" if or_cpu and machine.multiplies_bfloat16() else "float32"
    details = tf.config.experimental.get_device_details
    capability = min(details(each).get("compute_capability", (0, 0)) for each in gpus)
    return next((name for least, name in SINCE if capability[0] >= least), "float32")


def scale_of(optimizer: Any) -> dict[str, Any]:
    """The variables of float16's dynamic loss scale, by name; none where there is no scale.

    They are none of the optimizer's own `variables`, and a resumed run without them would begin with a
    scale at which it may have to skip steps.
    """
    if not isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer):
        return {}
    # The scale itself has no public name.
    return {"loss_scale": optimizer._loss_scale._current_loss_scale, "good_steps": optimizer.dynamic_counter}


def suit(layer: Any) -> None:
    """Makes one of Keras' depthwise convolutions what `StridedDepthwise` is, where that is of use."""
    if not devices.gpus() and layer.compute_dtype == "bfloat16" and layer.strides != (1, 1):
        layer.__class__ = StridedDepthwise  # the network comes from a function that takes no class


class StridedDepthwise(tf_keras.layers.DepthwiseConv2D):
    """A depthwise convolution whose gradient for its input is computed in float32.

    On a CPU of two cores the bfloat16 operation takes eleven times as long as the float32 one; casting to
    and fro costs a tenth of that. Where all is float32 nothing is cast and nothing differs.
    """

    def call(self, inputs: Any) -> Any:
        """Convolves float[batch, height, width, channels]."""
        strides, padding = [1, *self.strides, 1], self.padding.upper()

        @tf.custom_gradient
        def convolved(images: Any, kernel: Any) -> Any:
            def gradients(upstream: Any) -> tuple[Any, Any]:
                wide = (tf.cast(each, tf.float32) for each in (kernel, upstream))
                of_images = tf.nn.depthwise_conv2d_backprop_input(tf.shape(images), *wide, strides, padding)
                of_kernel = tf.nn.depthwise_conv2d_backprop_filter(
                    images, kernel.shape, upstream, strides, padding
                )
                return tf.cast(of_images, images.dtype), of_kernel

            return tf.nn.depthwise_conv2d(images, kernel, strides, padding), gradients

        return convolved(inputs, tf.cast(self.depthwise_kernel, inputs.dtype))
