"""A run made ready: what is told before the first step."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tf_keras

from canopy import cli
from tests.conftest import Command
from trainer import weights
from trainer.claim import claim_model_dir
from trainer.config import Config


def test_a_batch_larger_than_the_training_split_is_told(
    command: Command, records: Path, tmp_path: Path
) -> None:
    small = ["--weights", "none", "--alpha", 0.35, "--image_size", 32, "--epochs", 1, "--batch_size", 512]
    done = command("trainer.task", "--data", records, "--model_dir", tmp_path / "model", *small)
    assert done.returncode == cli.EXIT_OK
    (said,) = (line for line in done.stderr.splitlines() if "larger than the training split" in line)
    assert "512" in said


@pytest.mark.slow
def test_a_run_that_goes_on_is_not_said_to_start_from_random_weights(
    command: Command, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANOPY_WEIGHTS", "none")
    small = ["--weights", "auto", "--alpha", 0.35, "--image_size", 32, "--epochs", 1]
    told = []
    for _ in range(2):
        done = command("trainer.task", "--data", records, "--model_dir", tmp_path / "model", *small)
        assert done.returncode == cli.EXIT_OK, done.stderr
        told.append((weights.NONE_FOUND in done.stderr, "resuming after step" in done.stderr))
        shutil.rmtree(tmp_path / "model" / "export")
    assert told == [(True, False), (False, True)]


def test_a_mistake_of_a_restart_leaves_the_earlier_run_as_it_was(
    command: Command, records: Path, tmp_path: Path
) -> None:
    model_dir, weights = tmp_path / "model", tmp_path / "of-another-network.h5"
    claim_model_dir(Config(data="", model_dir=str(model_dir)), "data", is_chief=True)
    (model_dir / "export").mkdir()
    (model_dir / "export" / "model.json").write_text("{}")
    tf_keras.Sequential([tf_keras.layers.Dense(1, input_shape=[1])]).save_weights(weights)
    before = {path: path.read_bytes() for path in model_dir.rglob("*") if path.is_file()}
    flags = ["--data", records, "--model_dir", model_dir, "--batch_size", 8, "--restart"]
    for mistake, told in (
        (("--weights", weights), "does not fit MobileNetV2"),
        (("--weights", "none", "--init_from", model_dir / "export"), "--restart deletes"),
    ):
        done = command("trainer.task", *flags, *mistake)
        assert done.returncode == cli.EXIT_USER
        assert told in done.stderr
        assert {path: path.read_bytes() for path in model_dir.rglob("*") if path.is_file()} == before
