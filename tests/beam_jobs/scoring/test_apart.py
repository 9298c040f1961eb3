"""Scoring by processes: in small pieces where images take long, and begun with before Beam asks for it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from beam_jobs.images import DEFAULT_MAX_PIXELS
from beam_jobs.listing import list_images
from beam_jobs.scoring import apart, engines
from beam_jobs.scoring.apart import ApartScorer
from beam_jobs.sources import Source
from canopy.cli import UserError
from canopy.contract import MODEL_TFLITE
from tests.beam_jobs.making import noise, planet
from tests.beam_jobs.predicting import model as model

IMAGES = 150


@pytest.fixture
def scorer(model: Path) -> Iterator[ApartScorer]:
    made = ApartScorer(engines.read_info(str(model)), engines.LITE, 1, DEFAULT_MAX_PIXELS, 2)
    with closing(made):
        yield made


@pytest.fixture
def listing(tmp_path: Path) -> list[Source]:
    for i in range(IMAGES):
        (tmp_path / f"chip_{i}.jpg").write_bytes(planet(noise(i, 32, 32)))
    return list(list_images([str(tmp_path)]))


def test_of_images_that_take_long_few_are_sent_at_a_time_so_that_progress_is_told_as_it_is_made(
    scorer: ApartScorer, listing: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(apart, "PIECE_SECONDS", 1e-9)
    scored = scorer.score(listing, told.append)
    assert scored.names == [source.name for source in listing]
    assert sum(told) == IMAGES
    assert told[0] == apart.LEAST_IMAGES  # what is sent before it is known how long an image takes
    assert set(told[-8:]) == {1}
    monkeypatch.setattr(apart, "PIECE_SECONDS", 1e9)
    scorer.score(listing[:20], told.append)
    told.clear()
    scorer.score(listing, told.append)
    assert told[0] > apart.LEAST_IMAGES


def test_images_begun_with_are_scored_before_they_are_asked_for_and_once(
    scorer: ApartScorer, listing: list[Source]
) -> None:
    told: list[int] = []
    scorer.begin(listing, told.append)
    others = scorer.score(listing[:20])  # which may be asked for before them
    deadline = time.monotonic() + 60
    while sum(told) < IMAGES and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sum(told) == IMAGES
    scored = scorer.score(list(listing), told.append)
    assert sum(told) == IMAGES
    assert scored.names == [source.name for source in listing]
    np.testing.assert_array_equal(scored.scores[:20], others.scores)
    again = scorer.score(listing, told.append)
    assert sum(told) == 2 * IMAGES
    np.testing.assert_array_equal(scored.scores, again.scores)


def test_what_is_wrong_with_images_begun_with_is_told_when_they_are_asked_for(
    model: Path, listing: list[Source], tmp_path: Path
) -> None:
    export = shutil.copytree(model, tmp_path / "export")
    (export / MODEL_TFLITE).write_bytes(b"no model")
    info = engines.read_info(str(export))
    with closing(ApartScorer(info, engines.LITE, 1, DEFAULT_MAX_PIXELS, 2)) as scorer:
        scorer.begin(listing, lambda _: None)
        with pytest.raises(UserError, match="cannot be loaded"):
            scorer.score(listing)


def test_images_begun_with_and_never_asked_for_hold_nothing_up(model: Path, listing: list[Source]) -> None:
    scorer = ApartScorer(engines.read_info(str(model)), engines.LITE, 1, DEFAULT_MAX_PIXELS, 2)
    scorer.begin(listing * 1_000, lambda _: None)
    begin = time.monotonic()
    scorer.close()
    assert time.monotonic() - begin < 10
