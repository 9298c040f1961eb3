"""Pictures of the model's size: which, how many at a time, and from where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from beam_jobs.images import to_rgb
from beam_jobs.scoring import pictures
from beam_jobs.scoring.pictures import Preparer
from beam_jobs.sources import Reader, Source
from canopy.model_info import ModelInfo
from tests.beam_jobs.making import jpeg, noise


def model(size: int) -> ModelInfo:
    return ModelInfo("export", ("red",), (0.5,), (), size, {})


@pytest.mark.parametrize(("size", "batch", "most"), [(96, 8, 256), (224, 2, 48), (224, 64, 64), (512, 3, 9)])
def test_as_many_are_made_at_a_time_as_stay_in_a_cache_in_whole_batches(
    size: int, batch: int, most: int
) -> None:
    assert pictures.room(model(size), batch) == most


def test_those_of_use_fill_the_first_rows_and_the_others_are_rejects(tmp_path: Path) -> None:
    files = {"a": jpeg(noise(1, 16, 16)), "b": b"no picture", "c": jpeg(noise(2, 16, 16))}
    for name, data in files.items():
        (tmp_path / f"{name}.jpg").write_bytes(data)
    group = [Source(str(tmp_path), f"{name}.jpg") for name in (*files, "gone")]
    rows = np.full((5, 16, 16, 3), 7, np.uint8)
    with Reader() as reader:
        made = Preparer(model(16), 10_000)(group, pictures.fetch(group, reader), rows)
    assert made.names == ["a", "c"]
    assert [(reject.name, reject.reason) for reject in made.rejects] == [
        ("b", "not_jpeg"),
        ("gone", "unreadable"),
    ]
    assert made.file_bytes == sum(map(len, files.values()))
    assert np.array_equal(rows[:2], [to_rgb(files["a"]), to_rgb(files["c"])])
    assert (rows[2:] == 7).all()
