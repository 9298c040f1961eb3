"""A run's loop: what it says of itself while it trains."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from canopy.cli import UserError
from tests.conftest import SMALLEST
from tests.trainer.replicas import passes_alone, two_replicas
from trainer import config, data_info, link
from trainer.cluster import Place
from trainer.training import loop, start
from trainer.training.pace import Pace
from trainer.training.steps import Steps
from trainer.training.stopping import Stopping


def test_a_resumed_run_tells_its_own_steps_beside_its_own_images() -> None:
    def told(before: int, images: int, steps: int = 32) -> str:
        found = {"f2": 0.9, "records": 64, "f2_constant": 0.7}
        outcome = loop.Outcome(steps, before, images, 10.0, found, "run/export")
        return outcome.told().partition("; F2 0.9000")[0]

    assert told(0, 932) == "trained 32 steps, 932 images in 10.0 s (93 images/s)"
    assert told(8, 699) == "trained the last 24 of 32 steps, 699 images in 10.0 s (70 images/s)"
    assert told(32, 0) == "all 32 steps were taken before"
    assert told(0, 1, steps=1) == "trained 1 step, 1 image in 10.0 s (0.1 images/s)"


def test_one_validation_record_is_told_as_one() -> None:
    outcome = loop.Outcome(1, 0, 2, 1.0, {"f2": 0.5, "records": 1, "f2_constant": 1.0}, "run/export")
    assert "F2 0.5000 on 1 validation record (constant tags 1.0000)" in outcome.told()


class CountingPace(Pace):
    """A clock by which each lap takes a second."""

    def __init__(self, done: int) -> None:
        super().__init__(done)
        self._done = done

    def lap(self, done: int) -> tuple[float, float]:
        before, self._done = self._done, done
        return float(done - before), 0.0


def test_a_rate_counts_images_and_not_the_padding_beside_them(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = sum(shard.records for shard in data_info.read(str(records)).shards("train"))
    batch = total - 1
    monkeypatch.setattr(loop, "Pace", CountingPace)
    flags = ["--data", records, "--model_dir", tmp_path, *SMALLEST, "--batch_size", batch, "--epochs", 2]
    settings = config.parse([*map(str, flags), "--log_steps", "1"])
    start.train(settings, Place(0, ()), Stopping(link.Near(None)))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = [line["images_per_second"] for line in lines if "loss" in line]
    assert len(rates) == 4
    assert rates[0] + rates[1] == rates[2] + rates[3] == total
    assert min(rates) < batch / 2


def test_scores_of_validation_that_are_no_numbers_end_the_run_before_they_are_written_down(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Overflowing(Steps):
        def score(self, batches: Iterable[tuple[Any, ...]]) -> npt.NDArray[np.float32]:
            table = super().score(batches)
            table[-1, 0] = np.nan
            return table

    monkeypatch.setattr(loop, "Steps", Overflowing)
    flags = ["--data", records, "--model_dir", tmp_path, *SMALLEST, "--epochs", 1]
    with pytest.raises(UserError, match=r"no number after step \d+, and .* --learning_rate"):
        start.train(config.parse(list(map(str, flags))), Place(0, ()), Stopping(link.Near(None)))
    assert '"validation"' not in (tmp_path / "metrics.jsonl").read_text()
    assert not (tmp_path / "export").exists()


class EnoughError(Exception):
    """The first step is about to be taken."""


def _begin_where_numbers_are_made_on_another_device(records: Path, model_dir: Path) -> None:
    two_replicas()
    found: list[str] = []

    def look(images: Any, labels: Any, weights: Any, *told: Any) -> None:
        found.extend(value.device[-5:] for value in told if value.dtype.is_floating)
        raise EnoughError

    class LookingSteps(Steps):
        def enter(self, epoch: int) -> None:
            self.train = look

    setattr(loop, "Steps", LookingSteps)  # noqa: B010 - mypy takes no assignment to another's import
    settings = config.parse(["--data", str(records), "--model_dir", str(model_dir), *map(str, SMALLEST)])
    with tf.device("/CPU:1"), pytest.raises(EnoughError):  # as on a GPU, which TensorFlow takes by itself
        start.train(settings, Place(0, ()), Stopping(link.Near(None)))
    assert found == ["CPU:0"]


def test_what_a_step_is_told_stays_in_the_hosts_memory(records: Path, tmp_path: Path) -> None:
    assert passes_alone(functools.partial(_begin_where_numbers_are_made_on_another_device, records, tmp_path))
