"""A split read from its records: scored through the export, and looked at as training decodes it.

Promises: every record once, in the records' own order; memory grows by some 300 bytes a record and its
scores, never by pictures; a record or shard that cannot be read ends in one sentence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from canopy import contract, cuda, patterns
from canopy.cli import UserError
from canopy.progress import Meter
from trainer import faults, plan, tracing
from trainer.data_info import DataInfo
from trainer.dataset import encoded
from trainer.decoding import decode, reduced
from trainer.files import refusal
from trainer.report.looks import THUMB, Looks, difference_hash
from trainer.shard import Shard

BATCH = 64  # images a call of the SavedModel
LOOKED_AT = 256  # pixels each way that pictures are looked at in, at least: a JPEG of twice that is reduced
MEASURED_SIDE = 1024  # pixels each way that are measured of a large picture: all, as floats, take gigabytes


@dataclass(frozen=True)
class Scored:
    """A split with the model's answer to each of its records."""

    looks: Looks
    scores: npt.NDArray[np.float32]  # [rows, classes]
    labels: npt.NDArray[np.bool_]  # [rows, classes]

    @property
    def names(self) -> list[str]:
        """The images' names."""
        return self.looks.names


def score(model: str, info: DataInfo, split: str) -> Scored:
    """Scores every record of a split through the export's `serving_default`.

    Args:
        model: the export folder, local or gs://.
        info: the data set.
        split: one of its splits that holds records.

    Raises:
        UserError: where the model or a record cannot be read, the model's scores are no numbers, or memory
            does not suffice.
        TryAgainError: where they cannot be read for a reason that may pass.
    """
    try:
        with patterns.plain(model) as folder:
            call = tf.saved_model.load(folder).signatures[contract.SIGNATURE_JPEG]
        given = call.structured_outputs["scores"].shape[-1]
        if given not in (None, len(info.vocabulary)):
            raise ValueError(f"it gives {given} scores for {len(info.vocabulary)} tags")
    except MemoryError:
        raise
    except Exception as error:  # damaged files raise nearly anything: RuntimeError, TypeError
        raise refusal(f"--model {model} cannot be loaded ({tracing.words(error)})", error) from error
    shards, gathered = info.shards(split), _Gathered()
    total = sum(shard.records for shard in shards)
    scores, labels = [], []
    with Meter(f"evaluating {split}", total) as meter:
        for names, images, multi_hot, *looks in _looked_at(info, shards, total):
            gathered.add(names, images, *looks)
            try:
                scores.append(call(image_bytes=images)["scores"].numpy())
            except tf.errors.OpError as error:
                if not cuda.lacks_memory(error):
                    raise
                raise UserError(
                    f"scoring does not fit into this machine's memory or its GPU's ({tracing.words(error)})"
                ) from error
            if not np.isfinite(scores[-1]).all():
                raise UserError(f"--model {model} gives scores that are no numbers: train it again")
            labels.append(multi_hot.numpy() > 0)
            meter.update(len(gathered.names))
    return Scored(gathered.looks(), np.concatenate(scores), np.concatenate(labels))


def look(info: DataInfo, split: str, most: int) -> Looks:
    """Looks at the first `most` records of a split, which preprocessing has put into a random order.

    Raises:
        UserError: where a record cannot be read.
    """
    shards, gathered = info.splits.get(split, ()), _Gathered()
    total = min(most, sum(shard.records for shard in shards))
    if not total:
        return Looks.empty()
    with Meter(f"looking at {split}", total) as meter:
        for names, images, _, *looks in _looked_at(info, shards, total):
            gathered.add(names, images, *looks)
            meter.update(len(gathered.names))
    return gathered.looks()


def pick(info: DataInfo, split: str, rows: set[int]) -> dict[int, bytes]:
    """The encoded pictures of a few rows, by row; reads them once more rather than holding all.

    Raises:
        UserError, TryAgainError: where a record cannot be read any more.
    """
    wanted, shards, classes = sorted(rows), info.shards(split), len(info.vocabulary)
    begins = np.cumsum([0, *(shard.records for shard in shards)])
    holders = np.searchsorted(begins, wanted, side="right") - 1
    parts = [plan.Part(int(i), row - int(begins[i]), 1) for i, row in zip(holders, wanted, strict=True)]
    records = faults.naming(encoded(shards, classes, parts), shards, classes)
    return {row: image.numpy() for row, (_, image, _) in zip(wanted, records, strict=True)}


class _Gathered:
    """Looks in the making, batch by batch."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._digests: list[bytes] = []
        self._hashes: list[Any] = []
        self._thumbs: list[Any] = []
        self._measures: list[Any] = []
        self._flat: list[Any] = []

    def add(self, names: Any, images: Any, thumbs: Any, measures: Any, flat: Any) -> None:
        self.names += [name.decode("utf-8", "replace") for name in names.numpy()]
        self._digests += [hashlib.blake2b(image, digest_size=16).digest() for image in images.numpy()]
        self._hashes.append(difference_hash(thumbs.numpy()))
        self._thumbs.append(thumbs.numpy().round().astype(np.uint8))  # a quarter of what is computed with
        self._measures.append(measures.numpy())
        self._flat.append(flat.numpy())

    def looks(self) -> Looks:
        return Looks(
            self.names,
            self._digests,
            np.concatenate(self._hashes),
            np.concatenate(self._thumbs),
            np.concatenate(self._measures),
            np.concatenate(self._flat),
        )


def _looked_at(info: DataInfo, shards: Sequence[Shard], most: int) -> Iterator[Any]:
    """Batches of (name, image, labels, thumbnail, measures, whether flat) of the first records."""

    def look_at(name: Any, image: Any, labels: Any) -> tuple[Any, ...]:
        pixels = reduced(image, LOOKED_AT)  # as training does: where it sees black, so must the report
        thumb = tf.image.resize(pixels[None], THUMB, method="area")[0]
        numbers = tf.cast(_middle(pixels), tf.float32)
        means, variances = tf.nn.moments(numbers, axes=[0, 1])
        # Each pixel has two differences, to the right and downwards.
        apart = tf.image.total_variation(numbers) / tf.cast(2 * tf.size(numbers), tf.float32)
        measures = tf.concat([means, tf.sqrt(variances), [apart]], axis=0)
        spread = tf.reduce_max(pixels, axis=[0, 1]) - tf.reduce_min(pixels, axis=[0, 1])
        return name, image, labels, thumb, measures, tf.reduce_all(spread == 0)

    classes = len(info.vocabulary)
    looked_at = encoded(shards, classes).take(most).map(look_at, num_parallel_calls=tf.data.AUTOTUNE)
    return faults.naming(looked_at.batch(BATCH).prefetch(2), shards, classes, decode)


def _middle(pixels: Any) -> Any:
    """The middle of a large picture, all of any other: uint8[height, width, 3]."""
    sides = tf.shape(pixels)[:2]
    kept = tf.minimum(sides, MEASURED_SIDE)
    first = (sides - kept) // 2
    return tf.slice(pixels, tf.concat([first, [0]], axis=0), tf.concat([kept, [3]], axis=0))
