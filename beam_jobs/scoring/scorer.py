"""Images to scores: read, decoded, resized and put through the model by several threads.

Promises: an image that cannot be used is a reject, never a score; scores do not depend on which images are
beside a picture; memory is that of a few groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from beam_jobs.runners import processes
from beam_jobs.scoring import pictures
from beam_jobs.scoring.engines import Engine, Engines
from beam_jobs.scoring.pictures import Preparer
from beam_jobs.scoring.worklist import Scored, joined, stacked
from beam_jobs.sources import Reader, Reading, Source
from canopy.cli import UserError
from canopy.model_info import ModelInfo

GROUP_BYTES = 8_000_000  # of files that a group should hold: of large images it takes fewer
TTA_VIEWS = (1, 8)


@dataclass(frozen=True)
class _Lane:
    """What one thread works with."""

    engine: Engine
    prepare: Preparer
    rows: NDArray[np.uint8]  # [group, size, size, 3], of the model's size


class Scorer:
    """The loaded model, and the threads that read, decode, resize and score side by side.

    Files are read ahead; a thread takes the bytes of some images all the way to scores: handing pictures from
    thread to thread costs more than it saves. To be closed.
    """

    def __init__(self, computing: Engines, model: ModelInfo, tta: int, max_pixels: int) -> None:
        """Starts the threads, one for each engine.

        Args:
            computing: the engines.
            model: what they were loaded from.
            tta: 1, or 8 to average over all flips and quarter turns.
            max_pixels: width times height above which an image is rejected by its header.
        """
        self._engines, self._tta = computing, tta
        self._batch = computing.loaded[0].batch
        self._room, size = pictures.room(model, self._batch), model.image_size
        self._most = self._batch  # images a group, until it is known how large the files are
        self._lanes: SimpleQueue[_Lane] = SimpleQueue()
        for one in computing.loaded:
            rows = np.zeros((self._room, size, size, 3), np.uint8)
            self._lanes.put(_Lane(one, Preparer(model, max_pixels), rows))
        self._crew = processes.crew(threads=len(computing.loaded), processes=0)

    def score(self, sources: Sequence[Source], count: Callable[[int], None] = lambda _: None) -> Scored:
        """Reads, converts and scores images.

        Args:
            sources: the images.
            count: called with the number of images done since the last call.

        Returns:
            Each image, in order, either scored or rejected.

        Raises:
            UserError: the model's scores are no numbers, or a store does not answer.
        """
        with Reader() as reader:
            return joined(self._groups(sources, reader), count)

    def close(self) -> None:
        """Ends the threads."""
        self._crew.close()

    def _groups(self, sources: Sequence[Source], reader: Reader) -> Iterator[Scored]:
        """Outcomes of a group each, in order; a few groups are begun ahead."""

        def begin() -> Iterator[Future[tuple[Scored, int]]]:
            begun = 0
            while begun < len(sources):
                group = sources[begun : begun + self._most]
                yield self._crew.submit(self._group, group, pictures.fetch(group, reader))
                begun += len(group)

        for scored, size in self._crew.outcomes(begin()):
            typical = size // (len(scored.names) + len(scored.rejects))
            self._most = pictures.fitting(GROUP_BYTES // max(typical, 1), self._room, self._batch)
            yield scored

    def _group(self, group: Sequence[Source], parts: Sequence[Reading]) -> tuple[Scored, int]:
        """Decodes, resizes and scores; also returns how many bytes the files took."""
        lane = self._lanes.get()
        try:
            made = lane.prepare(group, parts, lane.rows)
            scores = scores_of(lane.engine, lane.rows, len(made.names), self._tta, self._engines.folder)
        finally:
            self._lanes.put(lane)
        return Scored(made.names, scores, made.rejects, self._engines.name), made.file_bytes


def scores_of(
    engine: Engine, rows: NDArray[np.uint8], count: int, tta: int, folder: str
) -> NDArray[np.float32]:
    """Scores pictures, averaged over the views.

    Args:
        engine: what computes.
        rows: uint8[whole batches, size, size, 3].
        count: how many of them, from the first on, are wanted; the others fill the last batch up.
        tta: 1 or 8 views.
        folder: the export, for people.

    Returns:
        float32[count, classes].

    Raises:
        UserError: a score is no number.
    """
    means: list[NDArray[np.float32]] = []
    for begin in range(0, count, engine.batch):
        batch = rows[begin : begin + engine.batch]
        total = [engine.scores(view)[: count - begin] for view in _views(batch, tta)]
        means.append(np.mean(total, axis=0, dtype=np.float32))
    found = stacked(means)
    if not np.isfinite(found).all():
        raise UserError(f"--model {folder} gives scores that are no numbers: train it again")
    return found


def _views(pictures: NDArray[np.uint8], count: int) -> Iterator[NDArray[np.uint8]]:
    """The pictures, or all eight flips and quarter turns of them.

    Of the resized ones: a bilinear resize of the turned picture gives the turned result, for an eighth of
    the work.
    """
    if count == 1:
        yield pictures
        return
    for turns in range(4):
        turned = np.rot90(pictures, turns, axes=(1, 2))
        yield turned
        yield turned[:, :, ::-1]
