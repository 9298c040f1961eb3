"""TFRecords to batches: every record once an epoch, over any number of workers.

Promises: the workers' parts are disjoint and complete (`plan.py`), the order depends on seed and epoch
alone, an epoch can be entered at any step without decoding what lies before it, and every batch has the same
shape: what is missing in the last ones is filled with records that weigh nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from canopy import contract
from trainer import plan
from trainer.data_info import Shard

SHUFFLE_RECORDS = 2048  # encoded records held for shuffling: some 32 MB of chips
PREFETCH_BATCHES = 4  # so that one slow read does not make a device wait


@dataclass(frozen=True)
class Reading:
    """How one worker reads a split."""

    shards: tuple[Shard, ...]  # of the split, in their order
    classes: int  # size of the vocabulary
    image_size: int  # side of the images in a batch, pixels
    replica_batch: int  # images a step on each replica
    workers: int  # workers that share an epoch
    index: int  # this worker, from 0
    local_replicas: int = 1  # devices of each worker
    seed: int = 0  # of the order
    shuffle: bool = True  # False: the records' own order

    @property
    def total(self) -> int:
        """Records of the split."""
        return sum(shard.records for shard in self.shards)

    @property
    def worker_batch(self) -> int:
        """Images a step on this worker."""
        return self.replica_batch * self.local_replicas

    @property
    def steps(self) -> int:
        """Steps of an epoch, the same on every worker."""
        return plan.steps_per_epoch(self.total, self.workers, self.worker_batch)


def batches(reading: Reading, epoch: int = 0, first_step: int = 0) -> Any:
    """This worker's batches of one epoch, one for each replica and step.

    Args:
        reading: what to read, and how.
        epoch: which epoch's order to take, from 0.
        first_step: the step to begin with; what lies before is passed over undecoded.

    Returns:
        A `tf.data.Dataset` of (images uint8[batch, size, size, 3], labels float32[batch, classes],
        weights float32[batch]). The weights of one step sum to 1 over all replicas of all workers, so a
        weighted sum over the cluster is the mean over the step's records; padding weighs 0.
    """
    order = plan.epoch_order(len(reading.shards), reading.seed, epoch)
    if not reading.shuffle:
        order = list(range(len(reading.shards)))
    counts = [shard.records for shard in reading.shards]
    parts = plan.worker_parts(counts, order, reading.workers, reading.index)
    records = _read_parts(parts, reading.shards)
    if reading.shuffle:
        records = records.shuffle(
            SHUFFLE_RECORDS, seed=_order_seed(reading.seed, epoch), reshuffle_each_iteration=False
        )
    own = sum(part.take for part in parts)
    room = reading.steps * reading.worker_batch
    filler = records if parts else _read_parts([_any_record(counts)], reading.shards)
    if room > own:
        records = records.concatenate(filler.repeat().take(room - own))
    weights = tf.data.Dataset.from_tensor_slices(_record_weights(reading, own))
    pairs = tf.data.Dataset.zip((records, weights))
    pairs = pairs.skip(first_step * reading.worker_batch)
    examples = pairs.map(
        lambda record, weight: (*_example(record, reading), weight), num_parallel_calls=tf.data.AUTOTUNE
    )
    return examples.batch(reading.replica_batch, drop_remainder=True).prefetch(PREFETCH_BATCHES)


def encoded(shards: Sequence[Shard], classes: int) -> Any:
    """The records of a split as they are, in their own order, for evaluation.

    Args:
        shards: of the split.
        classes: size of the vocabulary.

    Returns:
        A `tf.data.Dataset` of (name string, encoded image string, labels int64[classes]).
    """
    parts = [plan.Part(i, 0, shard.records) for i, shard in enumerate(shards) if shard.records]
    spec = {
        contract.KEY_FILENAME: tf.io.FixedLenFeature([], tf.string),
        contract.KEY_ENCODED: tf.io.FixedLenFeature([], tf.string),
        contract.KEY_MULTI_HOT: tf.io.FixedLenFeature([classes], tf.int64),
    }

    def parse(record: Any) -> tuple[Any, Any, Any]:
        fields = tf.io.parse_single_example(record, spec)
        return fields[contract.KEY_FILENAME], fields[contract.KEY_ENCODED], fields[contract.KEY_MULTI_HOT]

    return _read_parts(parts, tuple(shards)).map(parse)


def decode(image: Any) -> Any:
    """Decodes an RGB image that any decoder reads right.

    Args:
        image: string scalar, a JPEG's or PNG's bytes (the op takes both).

    Returns:
        uint8[height, width, 3]; with the accurate DCT, which is Pillow's, to the bit for 4:4:4.
    """
    return tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE")


def resize(images: Any, size: int) -> Any:
    """Resizes as training, export and prediction all do.

    Args:
        images: uint8[..., height, width, 3].
        size: side of the result, pixels.

    Returns:
        uint8[..., size, size, 3], bilinear, antialiased where it shrinks.
    """
    resized = tf.image.resize(images, [size, size], antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)


def _example(record: Any, reading: Reading) -> tuple[Any, Any]:
    fields = tf.io.parse_single_example(
        record,
        {
            contract.KEY_ENCODED: tf.io.FixedLenFeature([], tf.string),
            contract.KEY_MULTI_HOT: tf.io.FixedLenFeature([reading.classes], tf.int64),
        },
    )
    image = decode(fields[contract.KEY_ENCODED])
    small = tf.ensure_shape(resize(image, reading.image_size), [reading.image_size, reading.image_size, 3])
    return small, tf.cast(fields[contract.KEY_MULTI_HOT], tf.float32)


def _read_parts(parts: Sequence[plan.Part], shards: tuple[Shard, ...]) -> Any:
    """Encoded records of `parts`, several shards in turn so that no one of them is waited for."""
    if not parts:
        return tf.data.Dataset.from_tensor_slices(tf.constant([], tf.string))
    table = tf.data.Dataset.from_tensor_slices(
        (
            tf.constant([shards[part.shard].path for part in parts]),
            tf.constant([part.skip for part in parts], tf.int64),
            tf.constant([part.take for part in parts], tf.int64),
        )
    )
    return table.interleave(
        lambda path, skip, take: tf.data.TFRecordDataset(path).skip(skip).take(take),
        cycle_length=min(8, len(parts)),
        block_length=16,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _record_weights(reading: Reading, own: int) -> npt.NDArray[np.float32]:
    """float32[steps * worker batch]: 1 over the records that count in a record's step, 0 for padding."""
    counted = plan.valid_records(reading.total, reading.workers, reading.worker_batch)
    weights = np.repeat(1.0 / np.maximum(counted, 1), reading.worker_batch).astype(np.float32)
    weights[own:] = 0.0
    return weights


def _any_record(counts: Sequence[int]) -> plan.Part:
    """The first record of the split: padding for a worker that has none of its own."""
    return plan.Part(next(i for i, count in enumerate(counts) if count), 0, 1)


def _order_seed(seed: int, epoch: int) -> int:
    """A seed of its own for each epoch; the factor is any large odd number."""
    return (seed * 1_000_003 + epoch) % (2**31)
