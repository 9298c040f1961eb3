"""A shard's work list, what comes of it, and how far it is: all that passes between driver and workers.

Promises: a list is a small JSON file in the staging folder, so a plan of any size is a pipeline of short
paths; a result is small too and is kept in the staging folder, so that the driver finds it on any runner.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from beam_jobs import storage
from beam_jobs.archives.contents import Entry
from beam_jobs.images import Encoding
from beam_jobs.sources import READERS, Source

PROGRESS_SECONDS = 0.5  # between two notes of how many images are done

_Asked = TypeVar("_Asked")
_Done = TypeVar("_Done")


@dataclass(frozen=True)
class Reject:
    """An image that is not used; a line of `rejects.jsonl`."""

    name: str  # without folder and ending
    reason: str  # one of those in `images`, or submission.NO_IMAGE
    detail: str  # what exactly, in the decoder's own words where it has any


def side_by_side(do: Callable[[_Asked], _Done], asked: Iterable[_Asked]) -> list[_Done]:
    """Reads or writes many small files, in order: in a store each takes a round trip.

    Args:
        do: called with each of `asked`, by threads.
        asked: lists, or their places; there may be thousands.
    """
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(do, asked))


def utf8(text: str) -> str:
    """Text as UTF-8 can hold it: undecodable bytes of a file's name become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def packed(sources: Iterable[Source]) -> dict[str, Any]:
    """Images as JSON holds them: each folder or archive once, with what is read in its stead."""
    places: dict[tuple[str, str], int] = {}
    rows: list[list[Any]] = []
    for source in sources:
        number = places.setdefault((source.container, source.copy), len(places))
        entry = source.entry
        at = None if entry is None else [entry.offset, entry.stored, entry.size, entry.method, entry.crc]
        rows.append([number, source.member, at])
    return {"places": list(places), "images": rows}


def unpacked(document: Mapping[str, Any]) -> list[Source]:
    """Reads what `packed` made."""
    places = document["places"]
    return [
        Source(places[number][0], member, None if at is None else Entry(*at), places[number][1])
        for number, member, at in document["images"]
    ]


@dataclass(frozen=True)
class Item:
    """One image to convert."""

    source: Source
    ids: tuple[int, ...]  # class ids, ascending
    statistics: bool  # whether its channel sums are wanted


@dataclass(frozen=True)
class Work:
    """One shard's work list."""

    split: str
    index: int  # of the shard in its split
    shard: str  # the file's name
    path: str  # where to write it
    result: str  # where to put the result
    progress: str  # where to put the number of images done so far, by workers on the driver's machine
    classes: int  # size of the vocabulary
    encoding: Encoding
    items: list[Item]

    def save(self, path: str) -> None:
        """Writes it as JSON."""
        head = {key: value for key, value in vars(self).items() if key not in ("items", "encoding")}
        document = {
            **head,
            "encoding": asdict(self.encoding),
            "sources": packed(item.source for item in self.items),
            "ids": [item.ids for item in self.items],
            "statistics": [int(item.statistics) for item in self.items],
        }
        storage.write_bytes(path, json.dumps(document, separators=(",", ":")).encode())

    @staticmethod
    def load(path: str) -> Work:
        """Reads what `save` wrote."""
        document = json.loads(storage.read_bytes(path))
        columns = unpacked(document.pop("sources")), document.pop("ids"), document.pop("statistics")
        items = [
            Item(source, tuple(ids), bool(statistics))
            for source, ids, statistics in zip(*columns, strict=True)
        ]
        encoding = Encoding(**document.pop("encoding"))
        return Work(**document, encoding=encoding, items=items)


@dataclass
class Result:
    """What became of one shard."""

    split: str
    index: int
    shard: str
    path: str
    result: str  # where this is kept
    converted: int = 0  # records that conversion wrote, before shards were evened out
    crc32c: str = ""  # of the whole file, eight hexadecimal digits
    lengths: list[int] = field(default_factory=list)  # bytes of each record in the file, framing included
    tags: list[int] = field(default_factory=list)  # per class: records that have it
    # Of each channel the sum of all values, and the sum of their squares.
    channel_sums: list[list[int]] = field(default_factory=lambda: [[0, 0, 0], [0, 0, 0]])
    channel_pixels: int = 0  # that the sums are over
    channel_images: int = 0  # likewise
    suspicious: list[str] = field(default_factory=list)  # names of images of one value throughout
    mended: int = 0  # images given an Adobe marker or an end
    rejects: list[Reject] = field(default_factory=list)

    @property
    def records(self) -> int:
        """In the file."""
        return len(self.lengths)

    @property
    def bytes(self) -> int:
        """Of the file."""
        return sum(self.lengths)

    def save(self) -> None:
        """Writes it as JSON to its place."""
        storage.write_bytes(self.result, json.dumps(asdict(self), separators=(",", ":")).encode())

    @staticmethod
    def load(path: str) -> Result:
        """Reads what `save` wrote."""
        document = json.loads(storage.read_bytes(path))
        document["rejects"] = [Reject(**reject) for reject in document["rejects"]]
        return Result(**document)


class Progress:
    """Leaves the number of a list's images done where the driver looks, on its own machine."""

    def __init__(self, path: str) -> None:
        """Takes the file to write; "": none."""
        self._path, self._done, self._told = path, 0, 0.0

    def __call__(self, new: int) -> None:
        """Counts images done since the last call."""
        self._done += new
        if time.monotonic() - self._told > PROGRESS_SECONDS:
            self._tell()

    def end(self, done: int) -> None:
        """Says that all are done, so many: whoever did them may have counted elsewhere."""
        self._done = done
        self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        if self._path:
            with contextlib.suppress(OSError):  # a worker elsewhere has no such folder
                Path(self._path).write_text(str(self._done))
