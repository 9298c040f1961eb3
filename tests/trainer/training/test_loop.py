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
