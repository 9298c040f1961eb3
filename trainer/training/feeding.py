"""Batches for the replicas of a worker, on GPUs before their step begins.

Promises: each step's batches in order, as many steps as are asked for; what goes wrong with a batch is raised
when its step comes. The next reader is made while the one before is in use.

A batch that a step takes from the host is copied to the GPU within the step, and a copy waits for all that
the GPU has to do yet (gpu_util.cc, CopyCPUTensorToGPU): it would compute nothing meanwhile. A copy that is
begun two steps ahead waits while the step before is computed, and is done before its own.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import tensorflow as tf

from trainer import dataset
from trainer.config import Config
from trainer.dataset import Reading
from trainer.local import Local

AHEAD = 2  # steps whose batches are on their way to the GPUs or there


class Feeding:
    """What the steps and the validations of a run are fed with, epoch after epoch.

    Each reader is made while the one before is in use, on another thread: it takes half a second, for which a
    device would have nothing to do.
    """

    def __init__(
        self, config: Config, training: Reading, validating: Reading, local: Local, gpus: Sequence[str] = ()
    ) -> None:
        """Reads nothing yet.

        Args:
            config: the run's settings.
            training: how this worker reads its part of the training split, whatever the size of the images.
            validating: likewise of the validation split.
            local: this worker's part of what the strategy distributes.
            gpus: names of its replicas' devices, to which batches are copied ahead; none: they stay.
        """
        self._config, self._training, self._validating = config, training, validating
        self._local, self._gpus = local, gpus
        self._pool = ThreadPoolExecutor(1, "canopy-readers")
        self._begun: dict[tuple[Any, ...], Future[Iterator[Any]]] = {}

    def training(self, epoch: int, entered: int) -> Iterator[tuple[Any, ...]]:
        """The batches of an epoch's steps, from step `entered` of it on; both count from 0."""
        made = self._take(self._training, epoch, entered)
        self._begin(self._validating, epoch)
        return self._shared_out(made, self._training.steps - entered)

    def validation(self, epoch: int) -> Iterator[tuple[Any, ...]]:
        """The batches of the validation after an epoch, counted from 0."""
        made = self._take(self._validating, epoch)
        if epoch + 1 < self._config.epochs:
            self._begin(self._training, epoch + 1)
        return self._shared_out(made, self._validating.steps)

    def _begin(self, reading: Reading, epoch: int) -> None:
        self._begun[reading, epoch, 0] = self._pool.submit(self._made, reading, epoch, 0)

    def _take(self, reading: Reading, epoch: int, entered: int = 0) -> Iterator[Any]:
        begun = self._begun.pop((reading, epoch, entered), None)
        return begun.result() if begun else self._made(reading, epoch, entered)

    def _made(self, reading: Reading, epoch: int, entered: int) -> Iterator[Any]:
        sized = dataclasses.replace(reading, image_size=self._config.size_in(epoch))
        return dataset.iterate(sized, epoch, entered)

    def _shared_out(self, batches: Iterator[Any], steps: int) -> Iterator[tuple[Any, ...]]:
        return shared_out(batches, steps, self._local, self._training.local_replicas, self._gpus)


def shared_out(
    batches: Iterator[Any], steps: int, local: Local, replicas: int, gpus: Sequence[str] = ()
) -> Iterator[tuple[Any, ...]]:
    """Yields the batches of one step after the other, as `strategy.run` takes them.

    Args:
        batches: this worker's, one for each replica and step.
        steps: how many.
        local: this worker's part of what the strategy distributes.
        replicas: of this worker.
        gpus: names of the replicas' devices, to which batches are copied ahead; none: they stay.
    """

    def take() -> list[Any]:
        found = [next(batches) for _ in range(replicas)]
        return [_copied(batch, gpu) for batch, gpu in zip(found, gpus, strict=True)] if gpus else found

    for found in _ahead(take, steps) if gpus else (take() for _ in range(steps)):
        yield tuple(map(local.spread, zip(*found, strict=True)))


def _copied(batch: tuple[Any, ...], device: str) -> tuple[Any, ...]:
    with tf.device(device):
        return tuple(map(tf.identity, batch))


def _ahead(take: Any, steps: int) -> Iterator[list[Any]]:
    """What `take` gives, taken on another thread, for a copy holds up whoever begins it."""
    pool = ThreadPoolExecutor(1, "canopy-feeding")
    try:
        begun = deque(pool.submit(take) for _ in range(min(AHEAD, steps)))
        for step in range(steps):
            found = begun.popleft().result()
            if step + AHEAD < steps:
                begun.append(pool.submit(take))
            yield found
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
