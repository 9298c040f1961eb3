"""Images' files to pictures of the model's size.

Promises: a picture is converted as preprocessing does and brought to size as training does; one that cannot
be used is a reject; files are read ahead of the decoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from beam_jobs import images, storage
from beam_jobs.scoring.resize import Resizer
from beam_jobs.sources import AHEAD_BYTES, Fetched, Reader, Reading, Source, content
from beam_jobs.work import Reject
from canopy.model_info import ModelInfo

# Pixels at the model's size of the pictures prepared at a time, before they are computed: decoding and the
# model each find the processor's caches as they left them, and 7 MB are little.
GROUP_PIXELS = 256 * 96 * 96


@dataclass
class Prepared:
    """What became of some images."""

    names: list[str] = field(default_factory=list)  # of those whose picture there is, in order
    rejects: list[Reject] = field(default_factory=list)  # images that cannot be used
    file_bytes: int = 0  # of all that could be read


def room(model: ModelInfo, batch: int) -> int:
    """How many images to prepare at a time: whole batches.

    Args:
        model: whose size the pictures get.
        batch: pictures a call of its engine.
    """
    return batch * max(1, round(GROUP_PIXELS / (batch * model.image_size**2)))


def fitting(wanted: int, most: int, batch: int) -> int:
    """How many images to take at a time where so many are wanted: whole batches if it can be.

    Args:
        wanted: by what their files or their time come to.
        most: from `room`.
        batch: pictures a call of the engine.
    """
    found = max(1, min(most, wanted))
    return found - found % batch if found > batch else found


def fetch(group: Sequence[Source], reader: Reader) -> list[Reading]:
    """Begins to read: objects of a store each on its own from the first, files as the reader sees fit."""
    remote = any(storage.is_remote(source.place) for source in group)
    parts = [[source] for source in group] if remote else [group]
    return [reader.begin(part, AHEAD_BYTES // len(parts)) for part in parts]


class Preparer:
    """Decodes and resizes; for one thread at a time."""

    def __init__(self, model: ModelInfo, max_pixels: int) -> None:
        """Allocates what resizing needs.

        Args:
            model: whose size the pictures get, decoded as its export does.
            max_pixels: width times height above which an image is rejected by its header.
        """
        self._least_side, self._max_pixels = model.least_side, max_pixels
        self._resizer = Resizer(model.image_size)

    def __call__(self, group: Sequence[Source], parts: Sequence[Reading], out: NDArray[np.uint8]) -> Prepared:
        """Decodes and resizes images as they arrive.

        Args:
            group: the images.
            parts: from `fetch`.
            out: uint8[as many or more, size, size, 3], takes the pictures, in order, from its first row on.
        """
        result = Prepared()
        fetched = (each for part in parts for each in part.result())
        self._resizer(self._decoded(group, fetched, result), out)
        return result

    def _decoded(
        self, group: Sequence[Source], fetched: Iterable[Fetched], result: Prepared
    ) -> Iterator[NDArray[np.uint8]]:
        """Pictures, one by one; the result gets the names of these, and the rejects."""
        for source, data in zip(group, fetched, strict=True):
            if isinstance(data, bytes):
                result.file_bytes += len(data)
            try:
                picture = images.to_rgb(content(data), self._max_pixels, self._least_side)
            except images.RejectedImage as reject:
                result.rejects.append(Reject(source.name, reject.reason, reject.detail))
                continue
            result.names.append(source.name)
            yield picture
