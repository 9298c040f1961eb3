"""Which worker reads which records of an epoch: pure arithmetic, the same on every worker.

Promises: for any numbers of shards and workers the workers' parts are disjoint, complete and equal within
one record, and every worker takes the same number of steps.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Part:
    """A run of records inside one shard."""

    shard: int  # index of the shard in the split
    skip: int  # records before the first one
    take: int  # records to read


def epoch_order(shards: int, seed: int, epoch: int) -> list[int]:
    """The order in which an epoch reads its shards: a permutation drawn from seed and epoch.

    Python's Mersenne Twister seeded with a string is stable across versions and platforms.
    """
    order = list(range(shards))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order


def worker_parts(counts: Sequence[int], order: Sequence[int], workers: int, index: int) -> list[Part]:
    """Cuts the records, laid end to end in `order`, into equal runs, and returns one worker's.

    Args:
        counts: records in each shard.
        order: indices into `counts`, as `epoch_order` gives them.
        workers: how many workers share the epoch.
        index: which of them asks, from 0.

    Returns:
        The worker's parts, none of them empty.
    """
    total = sum(counts)
    begin, end = total * index // workers, total * (index + 1) // workers
    parts, position = [], 0
    for shard in order:
        first, last = max(begin - position, 0), min(end - position, counts[shard])
        if first < last:
            parts.append(Part(shard, first, last - first))
        position += counts[shard]
    return parts


def steps_per_epoch(total: int, workers: int, batch: int) -> int:
    """Steps in which the worker with the most records sees all of them.

    Args:
        total: records of the split.
        workers: how many workers share them.
        batch: records a step of each worker.
    """
    most = math.ceil(total / workers)
    return math.ceil(most / batch)


def valid_records(total: int, workers: int, batch: int) -> npt.NDArray[np.int64]:
    """Records that count in each step over all workers; the rest of its global batch is padding.

    Args:
        total: records of the split.
        workers: how many workers share them.
        batch: records a step of each worker.

    Returns:
        int64[steps], summing to `total`.
    """
    bounds = total * np.arange(workers + 1, dtype=np.int64) // workers
    before = np.arange(steps_per_epoch(total, workers, batch), dtype=np.int64) * batch
    left = np.diff(bounds)[:, None] - before[None, :]
    counted: npt.NDArray[np.int64] = np.clip(left, 0, batch).sum(axis=0)
    return counted
