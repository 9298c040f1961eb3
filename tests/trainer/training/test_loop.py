"""A run's loop: what it says of itself while it trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import SMALLEST
from trainer import config, data_info, link
from trainer.cluster import Place
from trainer.training import loop, start
from trainer.training.pace import Pace
from trainer.training.stopping import Stopping


def test_a_resumed_run_tells_its_own_steps_beside_its_own_images() -> None:
    def told(before: int, images: int) -> str:
        found = {"f2": 0.9, "records": 64, "f2_constant": 0.7}
        return loop.Outcome(32, before, images, 10.0, found, "run/export").told().partition("; F2 0.9000")[0]

    assert told(0, 932) == "trained 32 steps, 932 images in 10.0 s (93 images/s)"
    assert told(8, 699) == "trained the last 24 of 32 steps, 699 images in 10.0 s (70 images/s)"
    assert told(32, 0) == "all 32 steps were taken before"


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
