"""Pictures to scores: the exported model, batches of one size, the eight flips and turns.

Promises: the model is known by its SavedModel and `model.json` alone; a picture is converted exactly as
preprocessing does; a picture that cannot be used is a reject, never a score.
"""

from __future__ import annotations

import io
import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from beam_jobs import images, storage
from beam_jobs.sources import Reader, Source
from beam_jobs.work import Reject
from canopy import contract, model_info, quiet
from canopy.cli import UserError
from canopy.model_info import ModelInfo

BATCH = 64  # images a call: MobileNetV2 gains nothing from more on CPUs, and GPUs are busy with it
LIST_IMAGES = 256  # images a work list: seconds of work, so that runners can share them out
BATCH_BYTES = 100_000_000  # of pixels a call, where pictures are large: the model needs several times that
TTA_VIEWS = (1, 8)


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
    error: str = ""  # the `UserError` that ended the work: raised in a worker, Beam would show its traceback


def read_model_info(folder: str) -> ModelInfo:
    """Reads an export's `model.json`.

    Raises:
        UserError: there is none, it is damaged, or of a newer format version.
    """
    path = storage.join(folder, contract.MODEL_JSON)
    return model_info.parse(storage.read_bytes(path) if storage.exists(path) else None, folder)


def work_lists(found: Sequence[Source], staging: str) -> list[WorkList]:
    """Cuts the images into lists whose outcomes go to a staging folder."""
    local = not storage.is_remote(staging)
    return [
        WorkList(
            tuple(found[begin : begin + LIST_IMAGES]),
            storage.join(staging, f"scores-{number:05d}.npz"),
            storage.join(staging, "progress", str(number)) if local else "",
        )
        for number, begin in enumerate(range(0, len(found), LIST_IMAGES))
    ]


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
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"--model {info.folder} cannot be loaded ({why})") from error
        self._constant, self._tta, self._folder = tf.constant, tta, info.folder

    def scores(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Scores a batch.

        Args:
            pictures: uint8[batch, height, width, 3], RGB.

        Returns:
            float32[batch, classes] in 0..1, averaged over the views.

        Raises:
            UserError: they are no numbers, as those of a model whose training diverged.
        """
        total = [
            self._call(rgb=self._constant(view))["scores"].numpy() for view in _views(pictures, self._tta)
        ]
        mean: NDArray[np.float32] = np.mean(total, axis=0, dtype=np.float32)
        if not np.isfinite(mean).all():
            raise UserError(f"--model {self._folder} gives scores that are no numbers: train it again")
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

    def bytes_of(shape: tuple[int, ...]) -> int:
        return len(waiting[shape]) * math.prod(shape)

    def flush(shape: tuple[int, ...]) -> None:
        group = waiting.pop(shape)
        result.names.extend(name for name, _ in group)
        result.scores.extend(scorer(np.stack([picture for _, picture in group])))

    with Reader() as reader, ThreadPoolExecutor(threads) as pool:
        for source, outcome in _ahead(sources, reader, max_pixels, pool, threads):
            if isinstance(outcome, images.RejectedImage):
                result.rejects.append(Reject(source.name, outcome.reason, outcome.detail))
                continue
            shape = outcome.shape
            waiting.setdefault(shape, []).append((source.name, outcome))
            if len(waiting[shape]) >= BATCH or bytes_of(shape) >= BATCH_BYTES:
                flush(shape)
            # Many sizes: memory stays bounded.
            elif (
                sum(map(len, waiting.values())) >= 4 * BATCH or sum(map(bytes_of, waiting)) >= 4 * BATCH_BYTES
            ):
                flush(max(waiting, key=bytes_of))
        for shape in list(waiting):
            flush(shape)
    return result


def pack(scored: Scored) -> bytes:
    """A work list's outcome as one file: what a worker can only write whole."""
    out = io.BytesIO()
    np.savez(
        out,
        names=np.array(json.dumps(scored.names)),
        scores=np.array(scored.scores, np.float32),
        rejects=np.array(json.dumps([asdict(reject) for reject in scored.rejects])),
        error=np.array(json.dumps(scored.error)),
    )
    return out.getvalue()


def unpack(data: bytes) -> Scored:
    """Reads what `pack` wrote."""
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        return Scored(
            json.loads(str(found["names"])),
            list(found["scores"]),
            [Reject(**reject) for reject in json.loads(str(found["rejects"]))],
            json.loads(str(found["error"])),
        )


def _ahead(
    sources: Sequence[Source], reader: Reader, max_pixels: int, pool: ThreadPoolExecutor, threads: int
) -> Iterator[tuple[Source, NDArray[np.uint8] | images.RejectedImage]]:
    """Pictures in order, decoded up to two batches before they are asked for; fewer where they are large."""

    def convert(source: Source) -> NDArray[np.uint8] | images.RejectedImage:
        try:
            return images.to_rgb(reader.read(source), max_pixels)
        except images.RejectedImage as reject:
            return reject

    pending: deque[tuple[Source, Future[NDArray[np.uint8] | images.RejectedImage]]] = deque()
    left, room = iter(sources), threads
    while True:
        while len(pending) < room and (following := next(left, None)) is not None:
            pending.append((following, pool.submit(convert, following)))
        if not pending:
            return
        source, future = pending.popleft()
        outcome = future.result()
        if isinstance(outcome, np.ndarray):
            room = max(threads, min(2 * BATCH, 2 * BATCH_BYTES // outcome.nbytes))
        yield source, outcome


def _views(pictures: NDArray[np.uint8], count: int) -> Iterator[NDArray[np.uint8]]:
    """The pictures, or all eight flips and quarter turns of them."""
    if count == 1:
        yield pictures
        return
    for turns in range(4):
        turned = np.rot90(pictures, turns, axes=(1, 2))
        yield np.ascontiguousarray(turned)
        yield np.ascontiguousarray(turned[:, :, ::-1])
