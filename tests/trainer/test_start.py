"""A run made ready: what is told before the first step."""

from __future__ import annotations

from pathlib import Path

from canopy import cli
from tests.conftest import Command


def test_a_batch_larger_than_the_training_split_is_told(
    command: Command, records: Path, tmp_path: Path
) -> None:
    small = ["--weights", "none", "--alpha", 0.35, "--image_size", 32, "--epochs", 1, "--batch_size", 512]
    done = command("trainer.task", "--data", records, "--model_dir", tmp_path / "model", *small)
    assert done.returncode == cli.EXIT_OK
    (said,) = (line for line in done.stderr.splitlines() if "larger than the training split" in line)
    assert "512" in said
