"""Pictures to scores: the exported model, batches of one size, the eight flips and turns.

Promises: the model is known by its SavedModel and `model.json` alone; a picture is converted exactly as
preprocessing does; a picture that cannot be used is a reject, never a score.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beam_jobs import images, storage
from beam_jobs.sources import Reader, Source
from beam_jobs.work import Reject
from canopy import contract, quiet
from canopy.cli import UserError

BATCH = 64  # images a call: MobileNetV2 gains nothing from more on CPUs, and GPUs are busy with it
TTA_VIEWS = (1, 8)


@dataclass(frozen=True)
class ModelInfo:
    """What `model.json` says that prediction needs."""

    folder: str  # the export, local or gs://
    classes: tuple[str, ...]  # names in the order of the scores
    thresholds: tuple[float, ...]  # one a class
    constant: tuple[str, ...]  # the tags that score best where nothing is known of an image


@dataclass(frozen=True)
class WorkList:
    """One Beam element: images to score."""

    sources: tuple[Source, ...]
    path: str  # where the scores go
    progress: str  # a local file for the number of images done, or ""


@dataclass
class Scored:
    """What became of one work list."""

    names: list[str] = field(default_factory=list)  # of the images scored
    scores: list[NDArray[np.float32]] = field(default_factory=list)  # float32[classes] each, in their order
    rejects: list[Reject] = field(default_factory=list)  # images that could not be used


def read_model_info(folder: str) -> ModelInfo:
    """Reads an export's `model.json`.

    Raises:
        UserError: there is none, it is damaged, or of a newer format version.
    """
    path = storage.join(folder, contract.MODEL_JSON)
    if not storage.exists(path):
        raise UserError(
            f"--model {folder}: there is no {contract.MODEL_JSON}, so it is no export of the trainer"
        )
    try:
        found = json.loads(storage.read_bytes(path))
        version = int(found["format_version"])
        if version > contract.MODEL_FORMAT_VERSION:
            raise UserError(
                f"--model {folder} has model format version {version}, and this Canopy reads up to "
                f"{contract.MODEL_FORMAT_VERSION}: upgrade Canopy or export again"
            )
        classes, thresholds = tuple(found["classes"]), tuple(float(t) for t in found["thresholds"])
        if len(classes) != len(thresholds):
            raise ValueError(f"{len(classes)} classes and {len(thresholds)} thresholds")
        return ModelInfo(folder, classes, thresholds, tuple(found["metrics"]["constant_tags"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be understood ({error!r})") from error


class Scorer:
    """The loaded model."""

    def __init__(self, info: ModelInfo, tta: int) -> None:
        """Loads the SavedModel; takes seconds.

        Args:
            info: which one.
            tta: 1, or 8 to average over all flips and quarter turns.

        Raises:
            UserError: it cannot be loaded.
        """
        with quiet.importing():
            import tensorflow as tf
        try:
            self._model = tf.saved_model.load(info.folder)
            self._call = self._model.signatures[contract.SIGNATURE_RGB]
        except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
            raise UserError(
                f"--model {info.folder} cannot be loaded ({str(error).splitlines()[0]})"
            ) from error
        self._constant, self._tta = tf.constant, tta

    def scores(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Scores a batch.

        Args:
            pictures: uint8[batch, height, width, 3], RGB.

        Returns:
            float32[batch, classes] in 0..1, averaged over the views.
        """
        total = [
            self._call(rgb=self._constant(view))["scores"].numpy() for view in _views(pictures, self._tta)
        ]
        mean: NDArray[np.float32] = np.mean(total, axis=0, dtype=np.float32)
        return mean


def score_all(
    sources: Sequence[Source],
    scorer: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    max_pixels: int,
    threads: int,
) -> Scored:
    """Reads, converts and scores images, in batches of equal size.

    Args:
        sources: the images.
        scorer: see `Scorer.scores`.
        max_pixels: width times height above which an image is rejected by its header.
        threads: that read and decode ahead of the model.

    Returns:
        Each image, either scored or rejected.
    """
    result = Scored()
    waiting: dict[tuple[int, ...], list[tuple[str, NDArray[np.uint8]]]] = {}

    def flush(shape: tuple[int, ...]) -> None:
        group = waiting.pop(shape)
        result.names.extend(name for name, _ in group)
        result.scores.extend(scorer(np.stack([picture for _, picture in group])))

    with Reader() as reader, ThreadPoolExecutor(threads) as pool:
        for source, outcome in _ahead(sources, reader, max_pixels, pool):
            if isinstance(outcome, images.RejectedImage):
                result.rejects.append(Reject(source.name, outcome.reason, outcome.detail))
                continue
            waiting.setdefault(outcome.shape, []).append((source.name, outcome))
            if len(waiting[outcome.shape]) == BATCH:
                flush(outcome.shape)
            elif sum(map(len, waiting.values())) >= 4 * BATCH:  # many sizes: memory stays bounded
                flush(max(waiting, key=lambda shape: len(waiting[shape])))
        for shape in list(waiting):
            flush(shape)
    return result


def _ahead(
    sources: Sequence[Source], reader: Reader, max_pixels: int, pool: ThreadPoolExecutor
) -> Iterator[tuple[Source, NDArray[np.uint8] | images.RejectedImage]]:
    """Pictures in order, decoded up to two batches before they are asked for."""

    def convert(source: Source) -> NDArray[np.uint8] | images.RejectedImage:
        try:
            return images.to_rgb(reader.read(source), max_pixels)
        except images.RejectedImage as reject:
            return reject

    left = iter(sources)
    pending: list[tuple[Source, Any]] = [(s, pool.submit(convert, s)) for s in islice(left, 2 * BATCH)]
    pending.reverse()
    while pending:
        source, future = pending.pop()
        for following in islice(left, 1):
            pending.insert(0, (following, pool.submit(convert, following)))
        yield source, future.result()


def _views(pictures: NDArray[np.uint8], count: int) -> Iterator[NDArray[np.uint8]]:
    """The pictures, or all eight flips and quarter turns of them."""
    if count == 1:
        yield pictures
        return
    for turns in range(4):
        turned = np.rot90(pictures, turns, axes=(1, 2))
        yield np.ascontiguousarray(turned)
        yield np.ascontiguousarray(turned[:, :, ::-1])
