"""Which name goes to which split and shard.

Promises: split and order come from a seeded hash of the name alone, so adding images moves no other image to
another split, and the same names give the same plan wherever and however often it is made. The order is a
global shuffle, shards are equal within one record, no name is lost or doubled. Pure functions on arrays:
five million names take seconds and 16 bytes each beside the names themselves.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

MIN_SHARDS = 16  # enough for a machine's cores and a trainer's readers, where there are images enough
MIN_SHARD_IMAGES = 64  # below this a shard is more trouble than help


@dataclass(frozen=True)
class Move:
    """Records that change shards so that all are equal within one: the last `count` of `giver`."""

    giver: int  # shard index
    taker: int  # shard index
    first: int  # position, in the giver, of the first record that moves
    count: int  # records


def digests(names: Iterable[str], seed: int) -> NDArray[np.uint64]:
    """Hashes names with BLAKE2b, keyed by the seed.

    Args:
        names: any text; surrogates (undecodable file names) too.
        seed: any integer.

    Returns:
        uint64[n, 2]: the first column decides the split, the second the order.
    """
    start = blake2b(str(seed).encode(), digest_size=16, person=b"canopy-plan")

    def digest(name: str) -> bytes:
        state = start.copy()
        state.update(name.encode("utf-8", "surrogatepass"))
        return state.digest()

    joined = b"".join(map(digest, names))
    return np.frombuffer(joined, ">u8").astype(np.uint64).reshape(-1, 2)


def split_of(digest: NDArray[np.uint64], fractions: Sequence[float]) -> NDArray[np.int32]:
    """The split of each name: where its hash falls among the cumulative fractions.

    Args:
        digest: uint64[n, 2], from `digests`.
        fractions: of each split; their sum is 1.

    Returns:
        int32[n], positions in `fractions`.
    """
    cumulative = np.cumsum(np.asarray(fractions, np.float64))[:-1]
    edges = np.array([min(round(float(edge) * 2**64), 2**64 - 1) for edge in cumulative], np.uint64)
    return np.searchsorted(edges, digest[:, 0], side="right").astype(np.int32)


def shuffled(digest: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Positions in the order of the hashes; equal names come side by side. int64[n]."""
    return np.lexsort((digest[:, 0], digest[:, 1]))


def find(wanted: NDArray[np.uint64], among: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where each name stands in another list of names.

    Args:
        wanted: uint64[n, 2], from `digests`.
        among: uint64[m, 2], from `digests` with the same seed. Of equal names the first counts.

    Returns:
        int64[n]: positions in `among`, -1 where it is not there.
    """
    result = np.full(len(wanted), -1, np.int64)
    if not len(among):
        return result
    order = shuffled(among)
    keys = among[order]
    at = np.searchsorted(keys[:, 1], wanted[:, 1])
    open_ = np.arange(len(wanted))
    while len(open_):  # once, unless the second column alone is the same for two names
        inside = at[open_] < len(keys)
        open_ = open_[inside]
        open_ = open_[keys[at[open_], 1] == wanted[open_, 1]]
        equal = keys[at[open_], 0] == wanted[open_, 0]
        result[open_[equal]] = order[at[open_[equal]]]
        open_ = open_[~equal]
        at[open_] += 1
    return result


def repeated(digest: NDArray[np.uint64], order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Groups of two and more equal names, each as positions (ascending); `order` is `shuffled(digest)`."""
    keys = digest[order]
    same = (keys[1:] == keys[:-1]).all(axis=1)
    if not same.any():
        return []
    group = np.concatenate([[0], np.cumsum(~same)])
    counts = np.bincount(group)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return [np.sort(order[starts[g] : starts[g] + counts[g]]) for g in np.flatnonzero(counts > 1)]


def shard_count(images: int, record_bytes: float, shard_mb: float) -> int:
    """How many shards the main split gets: from the inputs alone, never from the number of workers.

    Args:
        images: of that split.
        record_bytes: of a typical record.
        shard_mb: the largest size a shard should have, in MB (10^6 bytes); records that are larger than
            the typical one make some a few percent larger.
    """
    by_size = math.ceil(images * record_bytes / max(shard_mb * 1e6, 1))
    return max(by_size, min(MIN_SHARDS, math.ceil(images / MIN_SHARD_IMAGES)), 1)


def shard_counts(images: Mapping[str, int], main: str, main_shards: int) -> dict[str, int]:
    """Shards of every split: the others in proportion to the main one.

    A split has one at least, and no more than images.
    """
    scale = main_shards / max(images[main], 1)
    wanted = {split: main_shards if split == main else round(n * scale) for split, n in images.items()}
    return {split: max(1, min(wanted[split], n)) for split, n in images.items()}


def bounds(records: int, shards: int) -> list[int]:
    """Where each shard begins, and the end: `shards + 1` positions, sizes equal within one."""
    return [records * i // shards for i in range(shards + 1)]


def balance(records: Sequence[int]) -> tuple[list[int], list[Move]]:
    """Evens out shards that lost different numbers of images: as few records as possible change places.

    Args:
        records: in each shard, as written.

    Returns:
        The records that each shard keeps of its own, and the moves, in the order in which a shard takes
        them. After them all shards are equal within one.
    """
    base, more = divmod(sum(records), len(records))
    largest = sorted(range(len(records)), key=lambda i: (-records[i], i))
    target = [base] * len(records)
    for i in largest[:more]:
        target[i] += 1
    keep = [min(have, want) for have, want in zip(records, target, strict=True)]
    moves: list[Move] = []
    givers = deque([i, keep[i], records[i]] for i in range(len(records)) if records[i] > keep[i])
    for taker in range(len(records)):
        lacking = target[taker] - keep[taker]
        while lacking:
            giver, first, end = givers[0]
            count = min(lacking, end - first)
            moves.append(Move(giver, taker, first, count))
            lacking -= count
            givers[0][1] += count
            if givers[0][1] == end:
                givers.popleft()
    return keep, moves
