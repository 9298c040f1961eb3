"""Lists of images to score, and what comes of them: all that passes between driver and workers.

Promises: a list is seconds of work, so that runners can share lists out, and a small JSON file in the staging
folder, so that images of any number make a pipeline of short paths; its outcome is one file, which a worker
can only write whole.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from beam_jobs import storage
from beam_jobs.sources import Source
from beam_jobs.work import Reject, packed, unpacked

LEAST_IMAGES, MOST_IMAGES = 512, 4096  # of a list, where there are as many
NONE: NDArray[np.float32] = np.empty((0, 0), np.float32)  # scores of no image


@dataclass(frozen=True)
class WorkList:
    """What a worker gets: images to score."""

    sources: Sequence[Source]
    place: str  # where the list itself lies
    path: str  # where the scores go
    progress: str  # where to put the number of images done, by workers on the driver's machine

    def save(self) -> WorkList:
        """Writes it to its place, and returns what is left to whoever waits for the scores: no images."""
        document = {"path": self.path, "progress": self.progress, "sources": packed(self.sources)}
        storage.write_bytes(self.place, json.dumps(document, separators=(",", ":")).encode())
        return replace(self, sources=())

    @staticmethod
    def load(place: str) -> WorkList:
        """Reads what `save` wrote."""
        document = json.loads(storage.read_bytes(place))
        return WorkList(unpacked(document["sources"]), place, document["path"], document["progress"])


@dataclass
class Scored:
    """What became of one work list."""

    names: list[str] = field(default_factory=list)  # of the images scored
    scores: NDArray[np.float32] = field(default_factory=lambda: NONE)  # [images, classes], in their order
    rejects: list[Reject] = field(default_factory=list)  # images that could not be used
    engine: str = ""  # the name of what computed the scores
    error: str = ""  # the sentence that ended the work: raised in a worker, Beam would show its traceback
    is_transient: bool = False  # whether that was a `TryAgainError`, and no `UserError`
    seconds: float = 0.0  # that it took, where that is wanted; goes into no file


def cut(
    found: Sequence[Source], staging: str, progress: str, workers: int, processes: int = 0
) -> list[WorkList]:
    """Cuts the images into lists that go to a staging folder, as their outcomes do.

    Args:
        found: the images.
        staging: where they go.
        progress: a folder of this machine for the numbers of images done.
        workers: that share the lists; 0: the runner knows.
        processes: beside a worker, that share each of its lists.
    """
    # At a list's end all wait for the last of them: few lists, but enough to share out evenly.
    size = LEAST_IMAGES
    if processes:
        size = MOST_IMAGES * processes
    elif workers:
        size = min(max(len(found) // (8 * workers), LEAST_IMAGES), MOST_IMAGES)
    return [
        WorkList(
            found[begin : begin + size],
            storage.join(staging, f"list-{number:05d}.json"),
            storage.join(staging, f"scores-{number:05d}.npz"),
            storage.join(progress, str(number)),
        )
        for number, begin in enumerate(range(0, len(found), size))
    ]


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
    result.scores = stacked(scores)
    return result


def stacked(scores: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
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
        said=np.array(json.dumps([scored.engine, scored.error, scored.is_transient])),
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
