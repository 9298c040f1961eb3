"""Which worker reads which records of an epoch: pure arithmetic, the same on every worker.

Promises: an epoch is cut into streams, and each worker reads some of them. For any numbers of shards and
streams the streams' parts are disjoint, complete and equal within one record, and every stream takes the same
number of steps. As long as the number of streams stays, a step's global batch holds the same records whatever
the number of workers, so a run may be resumed in mid-epoch by more or fewer of them.
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


def stream_parts(counts: Sequence[int], order: Sequence[int], streams: int, number: int) -> list[Part]:
    """Cuts the records, laid end to end in `order`, into equal runs, and returns one stream's.

    Args:
        counts: records in each shard.
        order: indices into `counts`, as `epoch_order` gives them.
        streams: into how many the epoch is cut.
        number: which of them, from 0.

    Returns:
        The stream's parts, none of them empty.
    """
    total = sum(counts)
    begin, end = total * number // streams, total * (number + 1) // streams
    parts, position = [], 0
    for shard in order:
        first, last = max(begin - position, 0), min(end - position, counts[shard])
        if first < last:
            parts.append(Part(shard, first, last - first))
        position += counts[shard]
    return parts


def stream_records(total: int, streams: int, number: int) -> int:
    """How many of `total` records stream `number` of `streams` holds: the size of its `stream_parts`."""
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


def steps_per_epoch(total: int, streams: int, batch: int) -> int:
    """Steps in which the stream with the most records gives all of them.

    Args:
        total: records of the split.
        streams: into how many they are cut.
        batch: records a step of each stream.
    """
    most = math.ceil(total / streams)
    return math.ceil(most / batch)


def valid_records(total: int, streams: int, batch: int) -> npt.NDArray[np.int64]:
    """Records that count in each step over all streams; the rest of its global batch is padding.

    Args:
        total: records of the split.
        streams: into how many they are cut.
        batch: records a step of each stream.

    Returns:
        int64[steps], summing to `total`.
    """
    bounds = total * np.arange(streams + 1, dtype=np.int64) // streams
    before = np.arange(steps_per_epoch(total, streams, batch), dtype=np.int64) * batch
    left = np.diff(bounds)[:, None] - before[None, :]
    counted: npt.NDArray[np.int64] = np.clip(left, 0, batch).sum(axis=0)
    return counted
