"""Scoring by one engine whose pictures other processes make: what comes out is what one process gives."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from beam_jobs.images import DEFAULT_MAX_PIXELS
from beam_jobs.scoring import apart, pictures
from beam_jobs.scoring.engines import Engines
from beam_jobs.scoring.fed import FedScorer
from beam_jobs.scoring.scorer import Scorer
from beam_jobs.sources import Source
from canopy.cli import UserError
from canopy.model_info import ModelInfo
from tests.beam_jobs.making import jpeg, noise, planet
from tests.beam_jobs.scoring.test_scorer import BATCH, SIZE, Mean

MODEL = ModelInfo("export", ("red", "green", "blue"), (0.5, 0.5, 0.5), (), SIZE, {"decodes_reduced": True})


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    """Images of several sizes and kinds, some of no use."""
    files = {f"chip_{i:02}": planet(noise(i, 16 + 16 * (i % 3), 16)) for i in range(60)}
    files |= {"large": jpeg(noise(1, 3 * SIZE, 4 * SIZE)), "cut": planet(noise(2))[:300], "nothing": b""}
    for name, data in files.items():
        (tmp_path / f"{name}.jpg").write_bytes(data)
    return [Source(str(tmp_path), f"{name}.jpg") for name in (*files, "gone")]


@pytest.fixture
def engine() -> Mean:
    return Mean()


@pytest.fixture
def scorer(engine: Mean, monkeypatch: pytest.MonkeyPatch) -> Iterator[FedScorer]:
    monkeypatch.setattr(pictures, "GROUP_PIXELS", 2 * BATCH * SIZE * SIZE)
    loaded = Engines("Mean", "export", [engine] * 5)
    with closing(FedScorer(MODEL, lambda: loaded, 8, DEFAULT_MAX_PIXELS, 2)) as made:
        yield made


def test_scores_and_rejects_are_those_of_one_process_in_the_lists_order(
    scorer: FedScorer, sources: list[Source]
) -> None:
    found = scorer.score(sources)
    with closing(Scorer(Engines("Mean", "export", [Mean()]), MODEL, 8, DEFAULT_MAX_PIXELS)) as one:
        wanted = one.score(sources)
    assert found.names == wanted.names == [source.name for source in sources[:61]]
    assert found.scores.tobytes() == wanted.scores.tobytes()
    assert found.rejects == wanted.rejects
    assert [reject.reason for reject in found.rejects] == ["undecodable", "empty", "unreadable"]
    assert found.engine == "Mean"


def test_the_engine_is_called_by_as_many_threads_as_it_takes_and_no_picture_is_made_in_this_process(
    scorer: FedScorer, engine: Mean, sources: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures.Preparer, "__call__", lambda *_: pytest.fail("made here"))
    assert len(scorer.score(sources * 4).names) == 4 * 61
    assert len(set(engine.calls)) == engine.at_once


def test_of_images_that_take_long_few_are_sent_at_a_time_and_of_others_whole_batches(
    scorer: FedScorer, sources: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    scorer.score(sources[:60], told.append)
    assert sum(told) == 60
    assert {count % BATCH for count in told[:-1]} == {0}
    monkeypatch.setattr(apart, "PIECE_SECONDS", 1e-9)
    scorer.score(sources[:60], told.append)
    told.clear()
    scorer.score(sources[:60], told.append)
    assert told == [1] * 60


def test_a_model_that_cannot_be_loaded_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> Engines:
        raise UserError("it is damaged")

    with pytest.raises(UserError, match="it is damaged"):
        FedScorer(MODEL, load, 1, DEFAULT_MAX_PIXELS, 2)
    assert not multiprocessing.active_children()


def test_no_images_are_no_scores(scorer: FedScorer) -> None:
    found = scorer.score([])
    assert (found.names, found.scores.size, found.rejects) == ([], 0, [])
