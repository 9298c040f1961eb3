"""A work list to its shard: order, rejects, statistics, reading ahead, evening out."""

from __future__ import annotations

import itertools
import multiprocessing
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_jobs import convert, images, records
from beam_jobs.convert import BATCH, FIRST, Apart, changes, convert_shard, rebuild
from beam_jobs.images import Converted, Encoding
from beam_jobs.plan import Move
from beam_jobs.runners.processes import crew
from beam_jobs.sources import Reader, Source
from beam_jobs.work import Item, Result, Work
from canopy.cli import UserError
from tests.beam_jobs.making import jpeg, noise, planet, read_records, truth, within

Put = Callable[..., Item]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Writes an image and says what to do with it: `put("name", data)`."""

    def put(name: str, data: bytes, ids: Sequence[int] = (0,)) -> Item:
        (tmp_path / f"{name}.jpg").write_bytes(data)
        return Item(Source(str(tmp_path), f"{name}.jpg"), tuple(ids), statistics=True)

    return put


def work(folder: Path, items: Sequence[Item], image_format: str = "jpeg") -> Work:
    shard, result = str(folder / "shard.tfrecord"), str(folder / "shard.json")
    return Work("train", 0, "shard.tfrecord", shard, result, "", 3, Encoding(image_format), list(items))


def run(job: Work, threads: int = 2, count: Callable[[int], None] = lambda _: None) -> Result:
    team = crew(threads, processes=0)
    try:
        return convert_shard(job, team, count)
    finally:
        team.close()


def names(shard: str) -> list[str]:
    return [re.search(rb"chip_\d+", record)[0].decode() for record in read_records(Path(shard))]  # type: ignore[index]


def test_the_sizes_of_a_few_images_records_are_those_that_a_shard_has(put: Put, tmp_path: Path) -> None:
    items = [put(f"chip_{i}", jpeg(noise(8 + i, 8))) for i in range(9)]
    items.insert(4, put("damaged", b"no JPEG"))
    job = work(tmp_path, items)
    assert convert.record_bytes(items, job.encoding, job.classes) == run(job).lengths


def test_to_learn_their_records_sizes_images_are_read_side_by_side(
    put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, read = threading.Barrier(2, timeout=20), Reader.read

    def waiting_for_another(self: Reader, source: Source) -> bytes:
        both.wait()
        return read(self, source)

    monkeypatch.setattr(Reader, "read", waiting_for_another)
    items = [put(f"chip_{i}", jpeg(noise(8, 8))) for i in range(2 * FIRST)]
    assert len(convert.record_bytes(items, Encoding("jpeg"), 3)) == len(items)


def test_records_stand_in_the_lists_order_and_the_bytes_do_not_depend_on_the_threads(
    put: Put, tmp_path: Path
) -> None:
    sizes = [(24, 32), (200, 300), (1, 1)]
    job = work(tmp_path, [put(f"chip_{i}", jpeg(noise(i, *sizes[i % 3]))) for i in range(90)])
    counted: list[int] = []
    alone = run(job, threads=1, count=counted.append)
    wanted = Path(job.path).read_bytes()
    assert names(job.path) == [f"chip_{i}" for i in range(90)]
    assert (sum(counted), alone.converted, sum(alone.lengths)) == (90, 90, len(wanted))
    assert run(job, threads=5) == alone
    assert Path(job.path).read_bytes() == wanted
    assert Result.load(job.result) == alone


def test_what_cannot_be_used_is_set_down_with_its_reason_and_the_rest_is_written(
    put: Put, tmp_path: Path
) -> None:
    gone = put("gone", b"")
    Path(gone.source.path).unlink()
    items = [put("chip_0", jpeg(noise(0)), [0, 2]), gone, put("nothing", b"")]
    items += [put("cut", planet(noise(1))[:200]), put("chip_1", planet(noise(2)), [2])]
    done: list[int] = []
    result = run(work(tmp_path, items), count=done.append)
    assert sum(done) == 5
    assert [(reject.name, reject.reason) for reject in result.rejects] == [
        ("gone", "unreadable"),
        ("nothing", "empty"),
        ("cut", "undecodable"),
    ]
    assert (result.converted, result.tags) == (2, [1, 0, 2])
    assert names(result.path) == ["chip_0", "chip_1"]


def test_the_figures_are_those_of_all_images_written_and_of_the_pixels_that_were_to_be_counted(
    put: Put, tmp_path: Path
) -> None:
    empty = [put(f"empty_{i}", b"") for i in range(FIRST)]  # a batch of which nothing is written
    kept = [put(f"chip_{i}", planet(noise(i, 20 + i, 30))) for i in range(2 * FIRST)]
    flat = put("flat", jpeg(np.full((8, 8, 3), 77, np.uint8)))
    uncounted = [replace(put(f"chip_{20 + i}", planet(noise(i))), statistics=False) for i in range(FIRST)]
    result = run(work(tmp_path, [*empty, *kept, flat, *uncounted], "keep"))
    pixels = np.concatenate(
        [truth(Path(item.source.path).read_bytes()).reshape(-1, 3) for item in [*kept, flat]]
    ).astype(np.int64)
    assert result.channel_sums == [pixels.sum(0).tolist(), (pixels * pixels).sum(0).tolist()]
    assert (result.channel_pixels, result.channel_images) == (len(pixels), len(kept) + 1)
    assert (result.mended, result.suspicious) == (3 * FIRST, ["flat"])


@pytest.mark.parametrize(("records", "sizes"), [(2.5, [FIRST] * 3 + [2] * 44), (0.5, [FIRST] * 3 + [1] * 88)])
def test_of_large_images_a_batch_holds_fewer(
    records: float, sizes: list[int], put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [put(f"chip_{i:03}", jpeg(noise(1))) for i in range(100)]
    (length,) = {*run(work(tmp_path, items)).lengths}
    monkeypatch.setattr(convert, "BATCH_BYTES", int(records * length))
    counted: list[int] = []
    run(work(tmp_path, items), threads=1, count=counted.append)
    assert counted == sizes


def test_of_small_images_a_batch_holds_many_but_no_more_than_so_many(put: Put, tmp_path: Path) -> None:
    counted: list[int] = []
    run(work(tmp_path, [put(f"chip_{i}", jpeg(noise(1, 8, 8))) for i in range(300)]), count=counted.append)
    assert max(counted) == BATCH


def test_files_are_read_ahead_of_the_decoder(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a slow disk's latency hides behind the decoding."""
    items = [put(f"chip_{i}", jpeg(noise(i))) for i in range(6 * FIRST)]
    read = threading.Semaphore(0)
    whole, first = Reader.read, itertools.count()
    decode = images.convert

    def reading(self: Reader, source: Source) -> bytes:
        read.release()
        return whole(self, source)

    def waiting(*arguments: Any) -> Converted:
        """The first image is decoded once one that is none of its batch has been read."""
        for _ in range(FIRST + 1 if next(first) == 0 else 0):
            assert read.acquire(timeout=20), "nothing is read ahead"
        return decode(*arguments)

    monkeypatch.setattr(Reader, "read", reading)
    monkeypatch.setattr(images, "convert", waiting)
    assert run(work(tmp_path, items), threads=1).converted == len(items)


def converted(records: dict[str, list[int]]) -> list[Result]:
    """Results of shards with so many records each, by split."""
    return [
        Result(split, i, f"{split}-{i}", "", "", converted=count)
        for split, counts in records.items()
        for i, count in enumerate(counts)
    ]


@given(
    st.dictionaries(st.sampled_from(["train", "test"]), st.lists(st.integers(0, 9), min_size=1, max_size=9)),
    st.randoms(),
)
def test_changes_even_out_each_split_and_come_in_the_same_way_whatever_the_order_of_the_results(
    records: dict[str, list[int]], random: Any
) -> None:
    results = converted(records)
    held = {result.shard: [(result.shard, i) for i in range(result.converted)] for result in results}
    shuffled = random.sample(results, len(results))
    changed = {change.result.shard: change for change in changes(shuffled)}
    assert changed == {change.result.shard: change for change in changes(results)}
    after = dict(held)
    for shard, change in changed.items():
        moved = [held[giver.shard][move.first : move.first + move.count] for giver, move in change.takes]
        after[shard] = sum(moved, held[shard][: change.keep])
        assert after[shard] != held[shard]
        assert change.keep == len(held[shard]) or not change.takes
    for split in records:
        sizes = [len(rows) for shard, rows in after.items() if shard.startswith(split)]
        assert max(sizes) - min(sizes) <= 1
        before, now = (
            sorted(row for shard, rows in some.items() if shard.startswith(split) for row in rows)
            for some in (held, after)
        )
        assert before == now


def test_the_largest_number_of_shards_is_evened_out_in_seconds() -> None:
    with within(20):
        changed = changes(converted({"train": [i % 3 for i in range(99_999)]}))
    assert len(changed) == 2 * 33_333


@given(
    kept=st.integers(0, 4),
    first=st.integers(0, 5),
    moved=st.integers(0, 5),
    content=st.lists(st.binary(max_size=40), min_size=9),
)
@settings(max_examples=30)
def test_a_shard_that_is_evened_out_keeps_its_first_records_and_then_has_what_it_takes_also_when_done_again(
    tmp_path_factory: pytest.TempPathFactory, kept: int, first: int, moved: int, content: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    halves = {"own": content[:4], "other": content[4:]}
    found = {}
    for name, half in halves.items():
        framed = list(map(records.frame, half))
        (folder / name).write_bytes(b"".join(framed))
        found[name] = Result("train", 0, name, str(folder / name), "", lengths=list(map(len, framed)))
    moved = min(moved, len(halves["other"]) - first)
    for _ in range(2):
        result = rebuild(found["own"], kept, [(found["other"], Move(1, 0, first, moved))])
        assert read_records(folder / "own") == halves["own"][:kept] + halves["other"][first : first + moved]
        assert result.bytes == (folder / "own").stat().st_size


def test_a_shard_that_was_cut_short_since_ends_the_evening_out_and_the_taker_stays(tmp_path: Path) -> None:
    framed = records.frame(b"record")
    own, other = (
        Result("train", i, name, str(tmp_path / name), "", lengths=[len(framed)] * 3)
        for i, name in enumerate(("own", "other"))
    )
    (tmp_path / "own").write_bytes(framed * 3)
    (tmp_path / "other").write_bytes((framed * 3)[:-1])
    with within(20), pytest.raises(UserError, match="other is shorter than it was"):
        rebuild(own, 3, [(other, Move(1, 0, 2, 1))])
    assert (tmp_path / "own").read_bytes() == framed * 3


def test_processes_begin_with_all_shards_at_once(put: Put, tmp_path: Path) -> None:
    jobs = []
    for part in range(3):
        (tmp_path / str(part)).mkdir()
        jobs.append(
            work(tmp_path / str(part), [put(f"{part}{i}", planet(noise(i, 16, 16))) for i in range(4)])
        )
    paths = [f"{job.path}.list" for job in jobs]
    for job, path in zip(jobs, paths, strict=True):
        job.save(path)
    with closing(Apart(paths, 2, threads=1)) as apart:
        found = [apart.outcome(path) for path in paths[::-1]]
    assert not multiprocessing.active_children()
    made = [Path(job.path).read_bytes() for job in jobs]
    assert [run(job) for job in jobs[::-1]] == found
    assert [Path(job.path).read_bytes() for job in jobs] == made
