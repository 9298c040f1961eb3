"""Batches for the replicas of a worker, on GPUs before their step begins.

Promises: each step's batches in order, as many steps as are asked for; what goes wrong with a batch is raised
when its step comes.

A batch that a step takes from the host is copied to the GPU within the step, and a copy waits for all that
the GPU has to do yet (gpu_util.cc, CopyCPUTensorToGPU): it would compute nothing meanwhile. A copy that is
begun two steps ahead waits while the step before is computed, and is done before its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf

from trainer.local import Local

AHEAD = 2  # steps whose batches are on their way to the GPUs or there


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
