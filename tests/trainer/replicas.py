"""Two replicas on one CPU, for what has to hold for several devices of a worker."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def passes_alone(check: Callable[[], None]) -> bool:
    """Whether a check passes in a process of its own: a CPU is cut in two before TensorFlow starts, or never.

    Args:
        check: of a module that a new process can import.
    """
    process = multiprocessing.get_context("spawn").Process(target=check)
    process.start()
    process.join(120)
    return process.exitcode == 0


def two_replicas() -> Any:
    """A strategy over two halves of this machine's CPU; to be called in a process of its own."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
