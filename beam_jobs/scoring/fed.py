"""Scoring by one engine whose pictures plain processes decode: a GPU takes more of them than a core makes.

Promises: what `scorer.Scorer` promises, and the same scores. Threads of one process wait for Python's lock:
two prepare 1.5 times what one does, two processes twice as much, and a GPU can take what dozens make.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from beam_jobs.runners import processes
from beam_jobs.scoring import apart, pictures
from beam_jobs.scoring.engines import Engine, Engines
from beam_jobs.scoring.pictures import Prepared, Preparer
from beam_jobs.scoring.scorer import scores_of
from beam_jobs.scoring.worklist import Scored, joined
from beam_jobs.sources import Reader, Source
from canopy.model_info import ModelInfo


class FedScorer:
    """The processes, and the threads that call the engine. To be closed."""

    def __init__(
        self, model: ModelInfo, load: Callable[[], Engines], tta: int, max_pixels: int, count: int
    ) -> None:
        """Starts the processes, and loads the model meanwhile.

        Args:
            model: the export.
            load: what loads it.
            tta: 1, or 8 to average over all flips and quarter turns.
            max_pixels: width times height above which an image is rejected by its header.
            count: of processes.

        Raises:
            UserError: the export cannot be loaded, or a process was killed.
        """
        self._decoders = processes.crew(threads=0, processes=count)
        try:
            self._engines = load()
        except BaseException:
            self._decoders.close()
            raise
        self._tta, self._prepare = tta, functools.partial(_prepare, model, max_pixels)
        self._free: SimpleQueue[Engine] = SimpleQueue()
        for one in dict.fromkeys(self._engines.loaded):
            for _ in range(one.at_once):
                self._free.put(one)
        self._callers = processes.crew(threads=self._free.qsize(), processes=0)
        self._batch = self._engines.loaded[0].batch
        self._room = pictures.room(model, self._batch)
        self._most = self._batch  # images a piece, until it is known how long they take

    def score(self, sources: Sequence[Source], count: Callable[[int], None] = lambda _: None) -> Scored:
        """As `Scorer.score`.

        Raises:
            UserError: as there; or a process was killed.
        """
        pieces = self._decoders.pieces(sources, lambda: self._most, self._batch)
        begun = (self._decoders.submit(self._prepare, self._batch, tuple(piece)) for piece in pieces)
        called = (self._callers.submit(self._scored, *each) for each in self._decoders.outcomes(begun))
        return joined(self._callers.outcomes(called), count)

    def _scored(self, prepared: Prepared, rows: NDArray[np.uint8], seconds: float) -> Scored:
        images = len(prepared.names) + len(prepared.rejects)
        self._most = pictures.fitting(apart.paced(images, seconds), self._room, self._batch)
        engine = self._free.get()
        try:
            scores = scores_of(engine, rows, len(prepared.names), self._tta, self._engines.folder)
        finally:
            self._free.put(engine)
        return Scored(prepared.names, scores, prepared.rejects, self._engines.name)

    def close(self) -> None:
        """Ends processes and threads."""
        self._callers.close()
        self._decoders.close()


def _prepare(
    model: ModelInfo, max_pixels: int, batch: int, sources: Sequence[Source]
) -> tuple[Prepared, NDArray[np.uint8], float]:
    """The pictures of a piece, filled up to whole batches with rows that mean nothing, and the seconds."""
    start = time.monotonic()
    prepare, reader = _hand(model, max_pixels, threading.get_ident())
    rows = np.zeros((-(-len(sources) // batch) * batch, model.image_size, model.image_size, 3), np.uint8)
    prepared = prepare(sources, pictures.fetch(sources, reader), rows)
    used = -(-len(prepared.names) // batch) * batch
    return prepared, rows[:used], time.monotonic() - start


@functools.cache
def _hand(model: ModelInfo, max_pixels: int, thread: int) -> tuple[Preparer, Reader]:
    """A process' own, or a thread's where there can be no processes."""
    return Preparer(model, max_pixels), Reader()
