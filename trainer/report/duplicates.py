"""Pictures that occur in the training split too: what a good score can come from.

Promises: time and memory grow with the product and the sum of the two splits' sizes, in blocks of a few
megabytes; a picture counts once, however many of its like there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.report.looks import Looks

# Bits of 64 in which two pictures' difference hashes may differ. The hash and the use of a small distance:
# N. Krawetz, "Kind of Like That" (The Hacker Factor Blog, 2013). Small pictures lose more bits than large
# ones: of 32 px chips of Planet encoded anew at quality 85, 10 in a hundred lose over 8 (43 over 4); of 3,000
# with no twin among 20,000 none comes so near to one, and 6 within 10.
MOST_BITS = 8
# Mean absolute difference of two thumbnails, of 255. Smooth pictures (haze, cloud) share hashes by
# chance; re-encoding at another quality moves a thumbnail by less than this.
MOST_DIFFERENCE = 3.0
BLOCK = 2**21  # hash pairs compared at a time: 16 MiB


@dataclass(frozen=True)
class Twins:
    """Pictures of a split that have a like among others."""

    exact: list[tuple[str, str]]  # name here, name there: the same bytes
    near: list[tuple[str, str]]  # the same picture as far as thumbnails tell, in other bytes


def find(split: Looks, others: Looks) -> Twins:
    """Finds the pictures of a split that are among others.

    A picture of one value throughout is left out: it is like every other such picture, and another check
    names it.

    Args:
        split: what is evaluated.
        others: what was trained on.
    """
    known = {digest: i for i, digest in reversed(list(enumerate(others.digests))) if not others.flat[i]}
    exact, rest = [], []
    for i, digest in enumerate(split.digests):
        if split.flat[i]:
            continue
        if digest in known:
            exact.append((split.names[i], others.names[known[digest]]))
        else:
            rest.append(i)
    pairs = _near(split, np.asarray(rest, np.int64), others, np.flatnonzero(~others.flat))
    return Twins(exact, [(split.names[i], others.names[j]) for i, j in pairs])


def _near(
    split: Looks, rows: npt.NDArray[np.int64], others: Looks, candidates: npt.NDArray[np.int64]
) -> list[tuple[int, int]]:
    """For each of `rows` the most alike of `candidates`, where one is alike enough."""
    if not candidates.size:
        return []
    hashes, means = others.hashes[candidates], others.thumbs.mean(axis=(1, 2))
    step = max(1, BLOCK // hashes.size)
    found = []
    for start in range(0, rows.size, step):
        block = rows[start : start + step]
        bits = np.bitwise_count(split.hashes[block][:, None] ^ hashes)
        for i, columns in zip(block.tolist(), bits <= MOST_BITS, strict=True):
            alike = candidates[columns]
            nearest = _nearest(split.thumbs[i], others.thumbs, means, alike) if alike.size else -1
            if nearest >= 0:
                found.append((i, nearest))
    return found


def _nearest(
    thumb: npt.NDArray[np.uint8],
    thumbs: npt.NDArray[np.uint8],
    means: npt.NDArray[np.float64],
    among: npt.NDArray[np.int64],
) -> int:
    """The first of the thumbnails that are nearest, -1 where none is near enough.

    Args:
        thumb: of a picture, uint8[8, 9, 3].
        thumbs: of others.
        means: of each of these, float64[rows, 3].
        among: which of these have a like hash.
    """
    # Thumbnails differ by at least as much as their means do: clouds or waters, whose hashes are often alike,
    # are mostly told apart by these, for a seventieth of the numbers.
    apart = np.abs(means[among] - thumb.mean(axis=(0, 1))).mean(axis=1)
    among = among[apart <= MOST_DIFFERENCE + 1e-6]
    if not among.size:
        return -1
    step = max(1, BLOCK // thumb.size)
    apart = np.concatenate(
        [
            np.abs(thumbs[among[start : start + step]].astype(np.int16) - thumb).mean(axis=(1, 2, 3))
            for start in range(0, among.size, step)
        ]
    )
    best = int(apart.argmin())
    return int(among[best]) if apart[best] <= MOST_DIFFERENCE else -1
