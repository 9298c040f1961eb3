"""Scoring by plain processes beside Beam's, each with an engine of its own.

Promises: what `scorer.Scorer` promises, and the same scores: it is what each process uses.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from beam_jobs.runners import processes
from beam_jobs.scoring import engines
from beam_jobs.scoring.pictures import GROUP_PIXELS
from beam_jobs.scoring.scorer import Scorer
from beam_jobs.scoring.worklist import Scored, joined
from beam_jobs.sources import Source
from canopy.cli import TryAgainError, UserError
from canopy.model_info import ModelInfo

# At the model's size, of the images sent to a process at a time: about a second's work, and several of the
# scorer's groups, for it reads one while it computes another.
PIECE_PIXELS = 4 * GROUP_PIXELS
PIECE_SECONDS = 2.0  # that it should take: of large images, which take longest to decode, it holds fewer
# At a list's end, and until it is known how long an image takes: some batches' worth, for the model computes
# whole ones.
LEAST_IMAGES = 16
PROCESS_BYTES = 40 << 20  # that a process takes at least: it came to 60 to 75 MiB, at 96 and at 224 pixels


class ApartScorer:
    """The processes, to be closed."""

    def __init__(self, model: ModelInfo, engine: str, tta: int, max_pixels: int, count: int) -> None:
        """Starts them, each with the model.

        Args:
            model: the export.
            engine: one of `engines.CHOICES`.
            tta: 1, or 8 to average over all flips and quarter turns.
            max_pixels: width times height above which an image is rejected by its header.
            count: of processes.
        """
        self._model = (model, engine, tta, max_pixels)
        self._room, self._most = _room(model, tta), _least(model, tta)
        self._crew = processes.crew(threads=0, processes=count)
        self._begun: tuple[Sequence[Source], Future[Scored]] | None = None
        self._ahead = processes.crew(threads=1, processes=0)
        for _ in range(count):
            self._crew.submit(_load, *self._model)

    def begin(self, sources: Sequence[Source], count: Callable[[int], None]) -> None:
        """Begins with images that `score` is going to be asked for: Beam takes a second until it asks.

        Args:
            sources: the images.
            count: as there.
        """
        self._begun = sources, self._ahead.submit(self._in_pieces, sources, count)

    def score(self, sources: Sequence[Source], count: Callable[[int], None] = lambda _: None) -> Scored:
        """As `Scorer.score`.

        Raises:
            UserError: as there; or the export cannot be loaded, or a process was killed.
        """
        if self._begun and self._begun[0] == sources:
            (_, begun), self._begun = self._begun, None
            return begun.result()
        return self._in_pieces(sources, count)

    def _in_pieces(self, sources: Sequence[Source], count: Callable[[int], None]) -> Scored:
        groups = self._crew.pieces(sources, lambda: self._most, LEAST_IMAGES)
        begun = (self._crew.submit(_score, *self._model, tuple(group)) for group in groups)
        return joined(map(self._measured, self._crew.outcomes(begun)), count)

    def _measured(self, scored: Scored) -> Scored:
        """Passes an outcome on, by which the size of the next pieces is chosen."""
        images = len(scored.names) + len(scored.rejects)
        self._most = max(1, min(self._room, paced(images, scored.seconds)))
        return scored

    def close(self) -> None:
        """Ends the processes."""
        self._crew.close()
        self._ahead.close()


def pieces(images: int, model: ModelInfo, tta: int) -> int:
    """How many pieces images come to at most: more processes would have nothing to do."""
    return math.ceil(images / _least(model, tta))


def paced(images: int, seconds: float) -> int:
    """How many images take `PIECE_SECONDS`, where some took so long."""
    return round(images * PIECE_SECONDS / max(seconds, 1e-3))


def _least(model: ModelInfo, tta: int) -> int:
    return min(LEAST_IMAGES, _room(model, tta))


def _room(model: ModelInfo, tta: int) -> int:
    """Images of a piece at most."""
    return max(1, PIECE_PIXELS // (model.image_size**2 * tta))


def _load(model: ModelInfo, engine: str, tta: int, max_pixels: int) -> None:
    """Loads the model before there is work; what goes wrong is told when there is."""
    with contextlib.suppress(UserError, TryAgainError):
        _scorer(model, engine, tta, max_pixels)


def _score(model: ModelInfo, engine: str, tta: int, max_pixels: int, sources: Sequence[Source]) -> Scored:
    scorer, start = _scorer(model, engine, tta, max_pixels), time.monotonic()
    scored = scorer.score(sources)
    scored.seconds = time.monotonic() - start
    return scored


@functools.lru_cache(maxsize=1)
def _scorer(model: ModelInfo, engine: str, tta: int, max_pixels: int) -> Scorer:
    """A process' own, loaded with its first group."""
    return Scorer(engines.load(model, engine, threads=1), model, tta, max_pixels)
