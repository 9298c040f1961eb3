"""Images to scores: read, decoded, resized and put through the model by several threads.

Promises: a picture is converted exactly as preprocessing does; one that cannot be used is a reject, never a
score; scores do not depend on which images are beside a picture; memory is that of a few groups.
"""

from __future__ import annotations

import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from beam_jobs import images, storage
from beam_jobs.scoring.engines import Engine, Engines
from beam_jobs.scoring.resize import Resizer
from beam_jobs.sources import Fetched, Reader, Source, content
from beam_jobs.work import Reject
from canopy import contract, model_info
from canopy.cli import UserError
from canopy.model_info import ModelInfo

LIST_IMAGES, MOST_IMAGES = 512, 4096  # a work list: seconds of work, so that runners can share them out
AHEAD = 3  # groups begun for each thread, so that none waits for the list to go on
# Pixels at the model's size that a thread prepares before it computes: decoding and the model each find the
# processor's caches as they left them, and 7 MB are little.
GROUP_PIXELS = 256 * 96 * 96
GROUP_BYTES = 8_000_000  # of files that a group should hold: of large images it takes fewer
TTA_VIEWS = (1, 8)
NONE: NDArray[np.float32] = np.empty((0, 0), np.float32)  # scores of no image


@dataclass(frozen=True)
class WorkList:
    """One Beam element: images to score."""

    sources: tuple[Source, ...]
    path: str  # where the scores go
    progress: str  # where to put the number of images done, by workers on the driver's machine


@dataclass
class Scored:
    """What became of one work list."""

    names: list[str] = field(default_factory=list)  # of the images scored
    scores: NDArray[np.float32] = field(default_factory=lambda: NONE)  # [images, classes], in their order
    rejects: list[Reject] = field(default_factory=list)  # images that could not be used
    engine: str = ""  # the name of what computed the scores
    error: str = ""  # the sentence that ended the work: raised in a worker, Beam would show its traceback
    may_pass: bool = False  # whether that was a `TryAgainError`, and no `UserError`


def read_model_info(folder: str) -> ModelInfo:
    """Reads an export's `model.json`.

    Raises:
        UserError: there is none, it is damaged, or of a newer format version.
    """
    path = storage.join(folder, contract.MODEL_JSON)
    return model_info.parse(storage.read_bytes(path) if storage.exists(path) else None, folder)


def work_lists(
    found: Sequence[Source], staging: str, progress: str, workers: int, processes: int = 0
) -> list[WorkList]:
    """Cuts the images into lists whose outcomes go to a staging folder.

    Args:
        found: the images.
        staging: where outcomes go.
        progress: a folder of this machine for the numbers of images done.
        workers: that share the lists; 0: the runner knows.
        processes: beside a worker, that share each of its lists.
    """
    # At a list's end all wait for the last of them: few lists, but enough to share out evenly.
    size = LIST_IMAGES
    if processes:
        size = MOST_IMAGES * processes
    elif workers:
        size = min(max(len(found) // (8 * workers), LIST_IMAGES), MOST_IMAGES)
    return [
        WorkList(
            tuple(found[begin : begin + size]),
            storage.join(staging, f"scores-{number:05d}.npz"),
            storage.join(progress, str(number)),
        )
        for number, begin in enumerate(range(0, len(found), size))
    ]


@dataclass(frozen=True)
class _Lane:
    """What one thread works with."""

    engine: Engine
    resizer: Resizer
    pictures: NDArray[np.uint8]  # [group, size, size, 3], of the model's size


class Scorer:
    """The loaded model, and the threads that read, decode, resize and score side by side.

    Files are read ahead; a thread takes the bytes of some images all the way to scores: handing pictures from
    thread to thread costs more than it saves. To be closed.
    """

    def __init__(self, computing: Engines, size: int, tta: int, max_pixels: int) -> None:
        """Starts the threads, one for each engine.

        Args:
            computing: the engines.
            size: side of the pictures that they take, pixels.
            tta: 1, or 8 to average over all flips and quarter turns.
            max_pixels: width times height above which an image is rejected by its header.
        """
        self._engines, self._tta, self._max_pixels = computing, tta, max_pixels
        self._threads = len(computing.loaded)
        self._batch = computing.loaded[0].batch
        self._room = self._batch * max(1, round(GROUP_PIXELS / (self._batch * size**2)))
        self._most = self._batch  # images a group, until it is known how large the files are
        self._lanes: SimpleQueue[_Lane] = SimpleQueue()
        for one in computing.loaded:
            room = np.zeros((self._room, size, size, 3), np.uint8)
            self._lanes.put(_Lane(one, Resizer(size), room))
        self._pool = ThreadPoolExecutor(self._threads)

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
        self._pool.shutdown()

    def _groups(self, sources: Sequence[Source], reader: Reader) -> Iterator[Scored]:
        """Outcomes of a group each, in order; a few groups are begun ahead."""
        pending: deque[Future[tuple[Scored, int]]] = deque()
        begun = 0
        try:
            while pending or begun < len(sources):
                while begun < len(sources) and len(pending) < AHEAD * self._threads:
                    group = sources[begun : begun + self._most]
                    pending.append(self._pool.submit(self._group, group, self._fetch(group, reader)))
                    begun += len(group)
                scored, size = pending.popleft().result()
                self._most = self._fitting(size // (len(scored.names) + len(scored.rejects)))
                yield scored
        finally:
            wait([future for future in pending if not future.cancel()])  # they wait for the reader

    def _fitting(self, typical: int) -> int:
        """Images that a group may hold, of which a file takes so many bytes: whole batches if it can be."""
        most = max(1, min(self._room, GROUP_BYTES // max(typical, 1)))
        return most - most % self._batch if most > self._batch else most

    def _fetch(self, group: Sequence[Source], reader: Reader) -> list[Future[list[Fetched]]]:
        """Begins to read: objects of a store each on its own, files of this machine one after another.

        A file mostly takes microseconds, less than to hand it to a thread.
        """
        remote = any(storage.is_remote(source.container) for source in group)
        parts = [[source] for source in group] if remote else [group]
        return [reader.begin(part) for part in parts]

    def _group(self, group: Sequence[Source], parts: Sequence[Future[list[Fetched]]]) -> tuple[Scored, int]:
        """Decodes, resizes and scores; also returns how many bytes the files took."""
        result = Scored(engine=self._engines.name)
        lane = self._lanes.get()
        try:
            fetched = [each for part in parts for each in part.result()]
            lane.resizer(self._decoded(group, fetched, result), lane.pictures)
            result.scores = self._scores(lane, len(result.names))
        finally:
            self._lanes.put(lane)
        return result, sum(len(each) for each in fetched if isinstance(each, bytes))

    def _decoded(
        self, group: Sequence[Source], fetched: Sequence[Fetched], result: Scored
    ) -> Iterator[NDArray[np.uint8]]:
        """Pictures, one by one; the result gets the names of these, and the rejects."""
        for source, data in zip(group, fetched, strict=True):
            try:
                picture = images.to_rgb(content(data), self._max_pixels)
            except images.RejectedImage as reject:
                result.rejects.append(Reject(source.name, reject.reason, reject.detail))
                continue
            result.names.append(source.name)
            yield picture

    def _scores(self, lane: _Lane, count: int) -> NDArray[np.float32]:
        """float32[count, classes], averaged over the views, of the first pictures of a lane."""
        means = [NONE]
        for begin in range(0, count, self._batch):
            batch = lane.pictures[begin : begin + self._batch]
            total = [lane.engine.scores(view)[: count - begin] for view in _views(batch, self._tta)]
            means.append(np.mean(total, axis=0, dtype=np.float32))
        found = _stacked(means)
        if not np.isfinite(found).all():
            raise UserError(
                f"--model {self._engines.folder} gives scores that are no numbers: train it again"
            )
        return found


def joined(parts: Iterable[Scored], count: Callable[[int], None] = lambda _: None) -> Scored:
    """The outcome of several parts of a list, one after the other.

    Args:
        parts: of one engine.
        count: called with the number of images of each, once it is there.
    """
    result = Scored()
    scores = []
    for part in parts:
        result.names += part.names
        scores.append(part.scores)
        result.rejects += part.rejects
        result.engine = part.engine
        count(len(part.names) + len(part.rejects))
    result.scores = _stacked(scores)
    return result


def _stacked(scores: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Below each other; those of no image do not know how many classes there are."""
    return np.concatenate([each for each in scores if len(each)] or [NONE])


def pack(scored: Scored) -> bytes:
    """A work list's outcome as one file: what a worker can only write whole."""
    out = io.BytesIO()
    np.savez(
        out,
        names=np.array(json.dumps(scored.names)),
        scores=scored.scores,
        rejects=np.array(json.dumps([asdict(reject) for reject in scored.rejects])),
        said=np.array(json.dumps([scored.engine, scored.error, scored.may_pass])),
    )
    return out.getvalue()


def unpack(data: bytes) -> Scored:
    """Reads what `pack` wrote."""
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        return Scored(
            json.loads(str(found["names"])),
            found["scores"],
            [Reject(**reject) for reject in json.loads(str(found["rejects"]))],
            *json.loads(str(found["said"])),
        )


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
        yield np.ascontiguousarray(turned)
        yield np.ascontiguousarray(turned[:, :, ::-1])
