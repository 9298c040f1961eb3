"""A shard, as a data folder promises it: what data_info reads, integrity checks and dataset opens."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """One TFRecord file of a split."""

    path: str  # where it lies, local or gs://
    records: int  # how many records it holds
    bytes: int = -1  # its size; -1: not known
    crc32c: str = ""  # of the whole file, eight hexadecimal digits; empty: not known
