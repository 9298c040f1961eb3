"""What every worker says, told to all of them: a few whole numbers.

Promises: one collective, and the same answer for everybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.cluster import Place


def numbers(strategy: Any, place: Place, number: int) -> list[int]:
    """As `rows`, for a single number."""
    return [row[0] for row in rows(strategy, place, [number])]


def rows(strategy: Any, place: Place, numbers: Sequence[int]) -> list[list[int]]:
    """What all workers call it with, in their order; each waits for the others.

    Args:
        strategy: in whose replicas the workers' devices are.
        place: this worker's.
        numbers: as many as any other worker's.
    """
    mine = np.zeros([place.workers, len(numbers)])
    # Each of a worker's replicas adds a part.
    mine[place.index] = np.array(numbers) / (strategy.num_replicas_in_sync // place.workers)
    parts = strategy.run(lambda: tf.constant(mine))
    summed = strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)
    return [[round(each) for each in row] for row in summed.numpy().tolist()]
