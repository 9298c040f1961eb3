"""The devices that train, and how they exchange what they found.

Promises: whether TensorFlow sees a GPU is asked here and nowhere else in the trainer; what a run asks of its
devices is refused before it claims its folder.
"""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf

from canopy import machine
from canopy.cli import TryAgainError, UserError, first_line
from canopy.contract import HAS_TRAINED
from trainer.config import Config

HOST = "/CPU:0"  # the processor; within a replica, of the worker to which it belongs


def gpus() -> list[Any]:
    """The GPUs of this worker that TensorFlow sees: each is a replica; none: the CPU is."""
    found: list[Any] = tf.config.list_physical_devices("GPU")
    return found


def check(config: Config) -> None:
    """Finds out whether a run that asks for GPUs has one.

    Raises:
        UserError: where there is none.
        TryAgainError: where this machine had one when it trained, and it has failed: another may have one.
    """
    if gpus():
        return
    if config.require_gpu and os.environ.get(HAS_TRAINED):
        raise TryAgainError("--require_gpu is given and TensorFlow sees no GPU any more: it has failed")
    # There are device files and yet no GPU where a library is missing, and TensorFlow may not say which.
    there = (
        ", though there is one: CUDA's Python packages (the extra gpu), libcuda.so.1 or libnvidia-ml.so.1 "
        "of the driver are missing, or do not fit"
    )
    unseen = f"TensorFlow sees no GPU{there if machine.gpus() else ''}"
    if config.require_gpu:
        raise UserError(f"--require_gpu is given and {unseen}")
    if config.communication == "nccl":
        raise UserError(f"--communication nccl is given and {unseen}: use ring")


def on_host(number: float) -> Any:
    """A number for a graph, float32 in the host's memory, where nothing waits for a GPU.

    TensorFlow copies what is made outside a graph to the GPU at once, and a copy waits for all that the GPU
    has to do yet: gpu_util.cc, CopyCPUTensorToGPU. Only int32 stays where it is.
    """
    with tf.device(HOST):
        return tf.constant(number, tf.float32)


def strategy(communication: str) -> Any:
    """MultiWorkerMirroredStrategy over the cluster that TF_CONFIG names.

    Left to itself TensorFlow never takes NCCL: CollectiveParamResolverLocal::AssignCollectiveType does so
    only where it is told to.

    Args:
        communication: `--communication`.

    Raises:
        TryAgainError: where this worker's port is held, for it was free before.
    """
    exchange = tf.distribute.experimental
    implementation = exchange.CommunicationImplementation[communication.upper()]
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(
            communication_options=exchange.CommunicationOptions(implementation=implementation)
        )
    except tf.errors.UnknownError as error:
        if "gRPC server" not in str(error):  # TensorFlow has one name for much
            raise
        raise TryAgainError(
            f"another program has taken this worker's port meanwhile ({first_line(error)})"
        ) from error
