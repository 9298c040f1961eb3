"""Which worker reads which records of an epoch: pure arithmetic, the same on every worker.

Promises: for any numbers of shards and readers the readers' parts are disjoint, complete and equal within
one record, and every reader takes the same number of steps. An epoch is cut among streams, and each worker
reads some of them: as long as the number of streams stays, a step's global batch holds the same records
whatever the number of workers, so a run may be resumed in mid-epoch by more or fewer of them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Each stream begins within a shard, and passes over what lies before: more of them cost reading.
STREAMS = 8


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


def stream_records(total: int, streams: int, number: int) -> int:
    """How many of `total` records stream `number` of `streams` holds: the size of its `worker_parts`."""
    return total * (number + 1) // streams - total * number // streams


def streams(global_batch: int, workers: int) -> int:
    """Into how many streams an epoch is cut, each with an equal share of every global batch.

    Args:
        global_batch: records a step, over all workers.
        workers: how many workers share them; divides the global batch.

    Returns:
        The largest divisor of the global batch that is not above `STREAMS`, whatever the number of workers,
        as long as they can share the streams equally; else as many streams as workers.
    """
    most = max(count for count in range(1, STREAMS + 1) if global_batch % count == 0)
    return most if most % workers == 0 else workers


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
