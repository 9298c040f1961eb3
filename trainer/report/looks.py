"""What pictures look like, in little: enough to find dead ones, twins and another archive.

Promises: some 300 bytes a picture, plain NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MEASURES = (
    *(f"brightness of {channel}" for channel in ("red", "green", "blue")),
    *(f"contrast of {channel}" for channel in ("red", "green", "blue")),
    "sharpness",
)
THUMB = (8, 9)  # rows, columns: a difference hash of 64 bits compares neighbours in 8 rows of 9


@dataclass(frozen=True)
class Looks:
    """A row for each picture."""

    names: list[str]  # image names
    digests: list[bytes]  # of the encoded bytes
    hashes: npt.NDArray[np.uint64]  # [rows], difference hash: near pictures differ in few bits
    thumbs: npt.NDArray[np.uint8]  # [rows, 8, 9, 3]
    # [rows, 7], `MEASURES`, of 255: each channel's mean and standard deviation, and how far neighbouring
    # pixels are apart on average; of a large picture those of its middle.
    measures: npt.NDArray[np.float32]
    flat: npt.NDArray[np.bool_]  # [rows], whether each channel has one value throughout

    @staticmethod
    def empty() -> Looks:
        """Of no pictures."""
        thumbs, measures = np.zeros((0, *THUMB, 3), np.uint8), np.zeros((0, len(MEASURES)), np.float32)
        return Looks([], [], np.zeros(0, np.uint64), thumbs, measures, np.zeros(0, bool))


def difference_hash(thumbs: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    """64 bits that say where brightness falls from left to right.

    Args:
        thumbs: float[rows, 8, 9, 3], 0 to 255.

    Returns:
        uint64[rows]; source of the idea: N. Krawetz, "Kind of Like That" (The Hacker Factor Blog, 2013).
    """
    grey = np.asarray(thumbs, np.float64).mean(axis=-1)
    bits = (grey[:, :, :-1] > grey[:, :, 1:]).reshape(len(grey), 64)
    packed = np.packbits(bits, axis=1)
    return np.ascontiguousarray(packed).view(np.uint64).reshape(len(grey))
