"""What every object store has to do, whichever protocol its server speaks."""

from __future__ import annotations

import io
import os

import pytest

from beam_jobs import storage
from beam_jobs.sources import Source


def writes_whole_and_reads_in_parts(bucket: str) -> None:
    """A large object, written in pieces, comes out whole, in ranges and by seeking.

    Args:
        bucket: its address, such as gs://here.
    """
    data = os.urandom(20_000_000)  # large enough for an upload in several requests
    path = f"{bucket}/a/b.bin"
    with storage.open_write(path) as file:
        for start in range(0, len(data), 3_000_000):
            file.write(data[start : start + 3_000_000])
    assert storage.exists(path)
    assert not storage.exists(f"{bucket}/a/b")
    assert storage.read_bytes(path) == data
    assert Source(f"{bucket}/a", "b.bin").size == len(data)
    assert storage.read_range(path, 0, 10) == data[:10]
    assert storage.read_range(path, 5, 10) == data[5:15]
    assert storage.read_range(path, len(data) - 5, 10) == data[-5:]
    assert storage.read_range(path, len(data), 10) == b""
    assert storage.read_range(path, 0, 0) == b""
    with storage.open_read(path) as reader:
        reader.seek(-7, io.SEEK_END)
        assert reader.read() == data[-7:]
        reader.seek(4_000_000)
        assert reader.read(5_000_000) == data[4_000_000:9_000_000]
    storage.delete([path, path])
    assert not storage.exists(path)


def leaves_no_object_of_a_failed_writer(bucket: str) -> None:
    """A writer that raises, or that Ctrl-C ends, leaves nothing under the name."""

    def work(ends: type[BaseException]) -> None:
        with storage.open_write(f"{bucket}/half") as file:
            file.write(b"half")
            raise ends

    for ends in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(ends):
            work(ends)
        assert not storage.exists(f"{bucket}/half")
