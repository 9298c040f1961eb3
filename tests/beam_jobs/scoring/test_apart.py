"""Scoring by processes: pieces of work that are small where images take long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from beam_jobs.images import DEFAULT_MAX_PIXELS
from beam_jobs.listing import list_images
from beam_jobs.scoring import apart, engines
from beam_jobs.scoring.apart import ApartScorer
from tests.beam_jobs.making import noise, planet
from tests.beam_jobs.predicting import model as model

IMAGES = 150


@pytest.fixture
def scorer(model: Path) -> Iterator[ApartScorer]:
    made = ApartScorer(engines.read_info(str(model)), engines.LITE, 1, DEFAULT_MAX_PIXELS, 2)
    with closing(made):
        yield made


def test_of_images_that_take_long_few_are_sent_at_a_time_so_that_progress_is_told_as_it_is_made(
    scorer: ApartScorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = planet(noise(1, 32, 32))
    for i in range(IMAGES):
        (tmp_path / f"chip_{i}.jpg").write_bytes(data)
    listing = list(list_images([str(tmp_path)]))
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
