"""TFRecords to batches: every record once an epoch, over any number of workers.

Promises: the workers' parts are disjoint and complete (`plan.py`), the order depends on seed and epoch
alone, an epoch can be entered at any step without decoding what lies before it, and every batch has the same
shape: the last ones are filled up with records of weight 0. A shard that holds fewer records than it should
is an error, never a shorter epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from canopy import contract, machine
from trainer import decoding, faults, plan
from trainer.shard import Shard
from trainer.tracing import as_written

SHUFFLE_RECORDS = 2048  # encoded records held for shuffling, over all streams: some 32 MB of chips
HELD_BYTES = 256 << 20  # of encoded records held for any one purpose: fewer records where pictures are large
CHUNK = 64  # most images decoded by one call: its overhead is that of decoding two chips of 32 px
CHUNK_BYTES = 4 << 20  # of their files, which decoding makes some ten times as large
CHUNK_PIXELS = CHUNK * 256**2  # of their pictures: ten bytes each or less, in a call for each core
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
    def record_bytes(self) -> int:
        """The mean size of a record; not above 0 where the shards' sizes are not known."""
        return sum(shard.bytes for shard in self.shards) // max(1, self.total)

    def fitting(self, most: int, room: int) -> int:
        """How many records, at most `most` and at least one, take no more than `room` bytes."""
        return max(1, min(most, room // max(1, self.record_bytes)))

    @property
    def streams(self) -> int:
        """Streams into which an epoch is cut. Without shuffling there is one a worker, for order's sake."""
        return plan.streams(self.workers * self.worker_batch, self.workers) if self.shuffle else self.workers

    @property
    def own_streams(self) -> range:
        """The numbers of this worker's streams."""
        share = self.streams // self.workers
        return range(self.index * share, (self.index + 1) * share)

    def parts(self, epoch: int, number: int) -> list[plan.Part]:
        """What stream `number` reads in an epoch; empty where there are more streams than records."""
        counts = [shard.records for shard in self.shards]
        order = plan.epoch_order(len(counts), self.seed, epoch) if self.shuffle else range(len(counts))
        return plan.stream_parts(counts, order, self.streams, number)

    @property
    def stream_batch(self) -> int:
        """Records that each stream adds to a step."""
        return self.workers * self.worker_batch // self.streams

    @property
    def steps(self) -> int:
        """Steps of an epoch, the same on every worker."""
        return plan.steps_per_epoch(self.total, self.streams, self.stream_batch)


@as_written
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
    sources = tuple(_stream(reading, epoch, number, first_step) for number in reading.own_streams)
    most = reading.fitting(min(CHUNK, CHUNK_PIXELS // reading.image_size**2), CHUNK_BYTES)
    chunk = max(count for count in range(1, most + 1) if reading.replica_batch % count == 0)
    records = tf.data.Dataset.zip(sources).map(lambda *each: tf.concat(each, axis=0)).rebatch(chunk)
    # Not AUTOTUNE, which takes the cores of the host for those of the container.
    examples = records.map(
        lambda batch: _examples(batch, chunk, reading),
        num_parallel_calls=machine.cores(),
        deterministic=True,
    )
    if chunk < reading.replica_batch:  # else it would only copy
        examples = examples.rebatch(reading.replica_batch, drop_remainder=True)
    weights = tf.data.Dataset.from_tensor_slices(_record_weights(reading)[first_step:]).unbatch()
    paired = tf.data.Dataset.zip((examples, weights))
    return _untuned(paired.map(lambda example, weight: (*example, weight)).prefetch(PREFETCH_BATCHES))


def iterate(reading: Reading, epoch: int = 0, first_step: int = 0) -> Iterator[Any]:
    """Yields what `batches` holds. Nothing is read before the first is asked for.

    Raises:
        UserError: names the shard and the record that cannot be read.
    """
    read = sorted({part.shard for number in reading.own_streams for part in reading.parts(epoch, number)})
    own = [reading.shards[index] for index in read]
    made = iter(batches(reading, epoch, first_step))  # at once: it takes half a second
    return faults.naming(made, own, reading.classes, decoding.decode)


@as_written
def encoded(shards: Sequence[Shard], classes: int, parts: Sequence[plan.Part] | None = None) -> Any:
    """The records of a split as they are, in their own order, for evaluation.

    Args:
        shards: of the split.
        classes: size of the vocabulary.
        parts: which of them; None: all.

    Returns:
        A `tf.data.Dataset` of (name string, encoded image string, labels int64[classes]).
    """
    if parts is None:
        parts = [plan.Part(i, 0, shard.records) for i, shard in enumerate(shards) if shard.records]
    spec = {
        contract.KEY_FILENAME: tf.io.FixedLenFeature([], tf.string),
        contract.KEY_ENCODED: tf.io.FixedLenFeature([], tf.string),
        contract.KEY_MULTI_HOT: tf.io.FixedLenFeature([classes], tf.int64),
    }

    def parse(record: Any) -> tuple[Any, Any, Any]:
        fields = tf.io.parse_single_example(record, spec)
        return fields[contract.KEY_FILENAME], fields[contract.KEY_ENCODED], fields[contract.KEY_MULTI_HOT]

    return _untuned(_read_parts(parts, shards).map(parse))


def _examples(records: Any, count: int, reading: Reading) -> tuple[Any, Any]:
    """Decodes `count` records at once: uint8[count, size, size, 3] and float32[count, classes]."""
    fields = tf.io.parse_example(
        records,
        {
            contract.KEY_ENCODED: tf.io.FixedLenFeature([], tf.string),
            contract.KEY_MULTI_HOT: tf.io.FixedLenFeature([reading.classes], tf.int64),
            contract.KEY_HEIGHT: tf.io.FixedLenFeature([], tf.int64),
            contract.KEY_WIDTH: tf.io.FixedLenFeature([], tf.int64),
        },
    )
    encoded, size = fields[contract.KEY_ENCODED], reading.image_size
    sides = tf.stack([fields[contract.KEY_HEIGHT], fields[contract.KEY_WIDTH]], axis=1)
    pictures = decoding.batch(encoded, sides, count, size)
    labels = tf.cast(fields[contract.KEY_MULTI_HOT], tf.float32)
    return tf.ensure_shape(pictures, [count, size, size, 3]), labels


def _untuned(elements: Any) -> Any:
    """The data set without tf.data's tuner, which has nothing to tune here.

    It wakes less and less often, down to once a minute, and beside MultiWorkerMirroredStrategy an iterator is
    only let go of when it has woken once more: that would be up to a minute at each epoch's end.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return elements.with_options(options)


def _stream(reading: Reading, epoch: int, number: int, first_step: int) -> Any:
    """One stream's records, `stream_batch` for each step that is left of the epoch."""
    parts = reading.parts(epoch, number)
    records = _read_parts(parts, reading.shards)
    if reading.shuffle:
        seed = _order_seed(reading.seed, epoch, number)
        room = max(1, reading.fitting(SHUFFLE_RECORDS, HELD_BYTES) // reading.streams)
        records = records.shuffle(room, seed=seed, reshuffle_each_iteration=False)
    missing = reading.steps * reading.stream_batch - sum(part.take for part in parts)
    if missing:
        filler = records if parts else _read_parts([_any_record(reading.shards)], reading.shards)
        records = records.concatenate(filler.repeat().take(missing))
    records = records.skip(first_step * reading.stream_batch)
    ahead = reading.fitting(PREFETCH_BATCHES * reading.worker_batch, HELD_BYTES) // reading.worker_batch
    return records.batch(reading.stream_batch, drop_remainder=True).prefetch(max(1, ahead))


def _read_parts(parts: Sequence[plan.Part], shards: Sequence[Shard]) -> Any:
    """Encoded records of `parts`, one after the other; fewer than there should be are an error."""
    if not parts:
        return tf.data.Dataset.from_tensor_slices(tf.constant([], tf.string))
    table = tf.data.Dataset.from_tensor_slices(
        (
            tf.constant([shards[part.shard].path for part in parts]),
            tf.constant([part.skip for part in parts], tf.int64),
            tf.constant([part.take for part in parts], tf.int64),
        )
    )

    def read(path: Any, skip: Any, take: Any) -> Any:
        records = tf.data.TFRecordDataset(path).skip(skip).take(take)
        return records.apply(tf.data.experimental.assert_cardinality(take))

    return table.flat_map(read)


def _record_weights(reading: Reading) -> npt.NDArray[np.float32]:
    """float32[steps, replicas, replica batch]: 1 over the records that count in a step, 0 for padding."""
    counted = plan.valid_records(reading.total, reading.streams, reading.stream_batch)
    have = np.array(
        [plan.stream_records(reading.total, reading.streams, number) for number in reading.own_streams]
    )
    place = np.arange(reading.steps * reading.stream_batch).reshape(reading.steps, 1, reading.stream_batch)
    weights = (place < have[None, :, None]) / counted[:, None, None]
    shape = (reading.steps, reading.local_replicas, reading.replica_batch)
    return weights.reshape(shape).astype(np.float32)


def _any_record(shards: Sequence[Shard]) -> plan.Part:
    """The first record of the split: padding for a stream that has none of its own."""
    return plan.Part(next(i for i, shard in enumerate(shards) if shard.records), 0, 1)


def _order_seed(seed: int, epoch: int, number: int) -> int:
    """A seed of its own for each epoch's each stream; the factors are any large odd numbers."""
    return (seed * 1_000_003 + epoch * 10_007 + number) % (2**31)
