"""A worker's work: one shard's list of images to one shard file.

Promises: records stand in the list's order whatever the threads do, so the file's bytes depend on the list
alone; an image that cannot be used is set down with its reason; memory stays that of a few dozen images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from operator import add

import numpy as np
from numpy.typing import NDArray

from beam_jobs import images, plan, records, storage
from beam_jobs.images import Encoding, RejectedImage
from beam_jobs.plan import Move
from beam_jobs.runners import processes
from beam_jobs.runners.processes import Crew
from beam_jobs.sources import Reader, Reading, content
from beam_jobs.work import Item, Progress, Reject, Result, Work
from canopy import machine
from canopy.cli import UserError

BATCH = 64  # images taken at once, at most: handing them over one by one costs a tenth of a small image
FIRST = 4  # as many until it is known how large the images are
LEAST = 4  # as many at a list's end
BATCH_BYTES = 1_000_000  # of records that a batch should hold: of large images it takes fewer


@dataclass
class _Batch:
    """What became of a few consecutive images."""

    data: bytes = b""  # records as the file holds them, one after another
    lengths: list[int] = field(default_factory=list)  # of each, bytes
    tags: list[int] = field(default_factory=list)  # per class: records that have it
    rejects: list[Reject] = field(default_factory=list)
    suspicious: list[str] = field(default_factory=list)
    mended: int = 0
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(768, np.int64))
    pixels: int = 0
    measured: int = 0


def _convert_batch(items: list[Item], fetched: Reading, encoding: Encoding, classes: int) -> _Batch:
    batch = _Batch(tags=[0] * classes)
    framed = []
    for item, data in zip(items, fetched.result(), strict=True):
        name = item.source.name
        try:
            picture = images.convert(content(data), encoding, item.statistics)
            framed.append(records.frame(records.serialise(name, picture, item.ids, classes)))
        except RejectedImage as rejected:
            batch.rejects.append(Reject(name, rejected.reason, rejected.detail))
            continue
        for i in item.ids:
            batch.tags[i] += 1
        batch.mended += picture.mended
        if picture.constant:
            batch.suspicious.append(name)
        if picture.histogram is not None:
            batch.histogram += np.array(picture.histogram, np.int64)
            batch.pixels += picture.width * picture.height
            batch.measured += 1
    batch.data, batch.lengths = b"".join(framed), list(map(len, framed))
    return batch


def _ahead(
    items: Sequence[Item], encoding: Encoding, classes: int, reader: Reader, crew: Crew
) -> Iterator[_Batch]:
    """Reads and converts batches side by side, yields them in order; few are in the making at a time."""
    most = FIRST

    def begin() -> Iterator[Future[_Batch]]:
        for taken in crew.pieces(items, lambda: most, LEAST):
            fetched = reader.begin([item.source for item in taken])
            yield crew.submit(_convert_batch, taken, fetched, encoding, classes)

    for batch in crew.outcomes(begin()):
        if batch.lengths:
            typical = len(batch.data) // len(batch.lengths)
            most = max(1, min(BATCH, BATCH_BYTES // typical))
        yield batch


def convert_shard(work: Work, crew: Crew, count: Callable[[int], None] = lambda _: None) -> Result:
    """Reads, converts and writes one shard, whole or not at all.

    Args:
        work: the list.
        crew: threads that decode side by side, while others read ahead of them. The bytes written do not
            depend on their number.
        count: called with the number of images done since the last call.

    Returns:
        What became of it, saved at `work.result` too.

    Raises:
        UserError: the shard cannot be written.
    """
    result = Result(work.split, work.index, work.shard, work.path, work.result, tags=[0] * work.classes)
    histogram = np.zeros(768, np.int64)
    progress = Progress(work.progress)
    with Reader() as reader, storage.open_write(work.path) as file:
        writer = records.ChecksummedWriter(file)
        for batch in _ahead(work.items, work.encoding, work.classes, reader, crew):
            writer.write(batch.data)
            result.lengths += batch.lengths
            result.tags = list(map(add, result.tags, batch.tags))
            histogram += batch.histogram
            result.channel_pixels += batch.pixels
            result.channel_images += batch.measured
            result.suspicious += batch.suspicious
            result.mended += batch.mended
            result.rejects += batch.rejects
            new = len(batch.lengths) + len(batch.rejects)
            count(new)
            progress(new)
    progress.end(len(work.items))
    result.converted = len(result.lengths)
    result.crc32c = writer.crc32c
    result.channel_sums = images.channel_sums(histogram).tolist()
    result.save()
    return result


def record_bytes(
    items: Sequence[Item], encoding: Encoding, classes: int, count: Callable[[int], None] = lambda _: None
) -> list[int]:
    """How many bytes of a shard the records of a few images take, in order, but for those of no use.

    Args:
        items: the images.
        encoding: of the records' pictures.
        classes: tags in the vocabulary.
        count: called with the number of images done since the last call.
    """
    lengths: list[int] = []
    with closing(processes.crew(machine.cores(), processes=0)) as crew, Reader() as reader:
        for batch in _ahead(items, encoding, classes, reader, crew):
            lengths += batch.lengths
            count(len(batch.lengths) + len(batch.rejects))
    return lengths


class Apart:
    """Shards converted in other processes, each by one of them: a picture passes through no other's hands."""

    def __init__(self, paths: Sequence[str], count: int, threads: int) -> None:
        """Begins with all.

        Args:
            paths: of work lists.
            count: of processes.
            threads: of each, which it takes a shard's images side by side with.

        Raises:
            UserError: a process was killed.
        """
        self._crew = processes.crew(threads=0, processes=count)
        try:
            self._begun = {path: self._crew.submit(_convert_alone, path, threads) for path in paths}
        except UserError:
            self.close()
            raise

    def outcome(self, path: str) -> Result:
        """What became of a shard, once it is there.

        Raises:
            UserError: it cannot be written, or a process was killed.
        """
        return self._crew.outcome(self._begun[path])

    def close(self) -> None:
        """Ends the processes."""
        self._crew.close()


def _convert_alone(path: str, threads: int) -> Result:
    """A shard in a process that has no crew yet."""
    with closing(processes.crew(threads, processes=0)) as own:
        return convert_shard(Work.load(path), own)


@dataclass(frozen=True)
class Change:
    """What evens out one shard; see `rebuild`."""

    result: Result  # of the shard as converted
    keep: int  # of its own records
    takes: list[tuple[Result, Move]]  # what is appended


def changes(results: Sequence[Result]) -> list[Change]:
    """What evens out the shards of each split: those that take records, and those that drop their last ones.

    Args:
        results: of all shards as converted, in any order.

    Returns:
        A change for each shard that is not as it should be; none both takes and drops.
    """
    changed = []
    for shards in _by_split(results):
        keep, moves = plan.balance([shard.converted for shard in shards])
        takes: list[list[tuple[Result, Move]]] = [[] for _ in shards]
        for move in moves:
            takes[move.taker].append((shards[move.giver], move))
        for shard, kept, taken in zip(shards, keep, takes, strict=True):
            if taken or kept < shard.converted:
                changed.append(Change(shard, kept, taken))
    return changed


def evened(results: Iterable[Result]) -> bool:
    """Whether the shards of each split hold all that was converted, in numbers that differ by one at most."""
    for shards in _by_split(results):
        numbers = [shard.records for shard in shards]
        if sum(numbers) != sum(shard.converted for shard in shards) or max(numbers) - min(numbers) > 1:
            return False
    return True


def _by_split(results: Iterable[Result]) -> Iterable[list[Result]]:
    """The shards of each split, in order."""
    splits: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: result.index):
        splits.setdefault(result.split, []).append(result)
    return splits.values()


def rebuild(result: Result, keep: int, takes: list[tuple[Result, Move]]) -> Result:
    """Drops a shard's last records and appends others' last ones, so that all shards are equal within one.

    Idempotent: the bytes come from `result.lengths` and from records that no giver has dropped yet.

    Args:
        result: of the shard as converted.
        keep: of its own records.
        takes: what is appended, in order: the giver as converted, and which of its records.

    Returns:
        The shard's result with its new lengths and checksum; the other figures are left as they are.
    """
    chunks = [(result.path, 0, sum(result.lengths[:keep]))]
    lengths = result.lengths[:keep]
    for giver, move in takes:
        start = sum(giver.lengths[: move.first])
        moved = giver.lengths[move.first : move.first + move.count]
        chunks.append((giver.path, start, sum(moved)))
        lengths = lengths + moved
    with storage.open_write(result.path) as file:
        writer = records.ChecksummedWriter(file)
        for path, start, length in chunks:
            for data in _range(path, start, length):
                writer.write(data)
    return Result(**{**vars(result), "lengths": lengths, "crc32c": writer.crc32c})


def _range(path: str, start: int, length: int) -> Iterator[bytes]:
    """A part of a file, a megabyte at a time."""
    with storage.open_read(path) as file:
        file.seek(start)
        while length:
            data = file.read(min(length, 1 << 20))
            if not data:
                raise OSError(f"{path} is shorter than it was")
            length -= len(data)
            yield data
