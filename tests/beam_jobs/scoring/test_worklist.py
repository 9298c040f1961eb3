"""Lists of images to score hold every image once, and what comes of them survives its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from beam_jobs.archives.contents import Entry
from beam_jobs.scoring import worklist
from beam_jobs.scoring.worklist import LEAST_IMAGES, MOST_IMAGES, Scored, WorkList
from beam_jobs.sources import Source
from beam_jobs.work import Reject


@given(images=st.integers(0, 50_000), workers=st.integers(0, 40))
@example(images=50_000, workers=1)
def test_lists_hold_every_image_once_and_are_enough_for_all_workers(images: int, workers: int) -> None:
    sources = [Source("folder", "a.jpg")] * images
    lists = worklist.cut(sources, "staging", "progress", workers)
    assert sum(len(work.sources) for work in lists) == images
    assert len({work.path for work in lists}) == len({work.progress for work in lists}) == len(lists)
    assert all(0 < len(work.sources) <= MOST_IMAGES for work in lists)
    if images > workers * 8 * LEAST_IMAGES:
        assert len(lists) >= 8 * workers


@pytest.mark.parametrize(("images", "workers", "lists"), [(40_000, 4, 32), (900, 4, 2), (900, 0, 2)])
def test_lists_are_as_few_as_workers_share_evenly(images: int, workers: int, lists: int) -> None:
    sources = [Source("folder", "a.jpg")] * images
    assert len(worklist.cut(sources, "staging", "progress", workers)) == lists


@pytest.mark.parametrize("processes", [2, 64])
def test_processes_that_share_each_list_get_long_ones(processes: int) -> None:
    images = 5 * processes * MOST_IMAGES + 1
    lists = worklist.cut([Source("folder", "a.jpg")] * images, "staging", "progress", 1, processes)
    assert [len(work.sources) for work in lists] == [processes * MOST_IMAGES] * 5 + [1]


def test_outcomes_go_to_a_store_and_progress_to_this_machine() -> None:
    (work,) = worklist.cut([Source("gs://here/chips", "a.jpg")], "gs://here/out.csv.partial", "/tmp/here", 0)
    assert work.path == "gs://here/out.csv.partial/scores-00000.npz"
    assert work.progress == "/tmp/here/0"


ENTRIES = st.builds(Entry, *[st.integers(0, 2**40)] * 3, st.integers(-4, 100), st.integers(0, 2**32 - 1))
SOURCES = st.builds(Source, st.text(), st.text(), st.none() | ENTRIES, st.text())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sources=st.lists(SOURCES, max_size=5), path=st.text())
@example(sources=[Source("/chips\udce9", "a\udce9.jpg")], path="/out\udce9.csv.partial")
def test_a_list_survives_its_file_and_what_is_kept_of_it_holds_no_image(
    sources: list[Source], path: str, tmp_path: Path
) -> None:
    work = WorkList(sources, str(tmp_path / "list.json"), path, "progress")
    kept = work.save()
    assert (kept.sources, kept.place, kept.path) == ((), work.place, path)
    assert WorkList.load(kept.place) == work


@given(
    names=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5),
    rejects=st.lists(st.builds(Reject, st.text(), st.sampled_from(["empty"]), st.text()), max_size=3),
)
def test_a_lists_outcome_survives_its_file(names: list[str], rejects: list[Reject]) -> None:
    rng = np.random.default_rng(len(names))
    scores = rng.random((len(names), 3), np.float32)
    scored = Scored(names, scores, rejects, "one", "".join(names), bool(names))
    found = worklist.unpack(worklist.pack(scored))
    assert (found.names, found.rejects, found.engine, found.error) == (names, rejects, "one", "".join(names))
    assert found.is_transient == bool(names)
    assert np.array_equal(found.scores, scores)


def test_parts_in_which_no_image_was_scored_are_joined_with_those_in_which_some_were() -> None:
    bad = Reject("b", "empty", "the file is empty")
    parts = [Scored(rejects=[bad]), Scored(["a"], np.ones((1, 3), np.float32)), Scored(engine="one")]
    counted: list[int] = []
    found = worklist.joined(iter(parts), counted.append)
    assert (found.names, found.scores.tolist(), found.rejects) == (["a"], [[1.0, 1.0, 1.0]], [bad])
    assert found.engine == "one"
    assert counted == [1, 1, 0]
    assert worklist.joined([]).scores.size == 0
