"""A run made ready: what is told before the first step."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from canopy import cli
from canopy.cli import UserError
from tests.conftest import Command
from trainer import config, data_info, link, model, weights
from trainer.claim import claim_model_dir
from trainer.cluster import Place
from trainer.config import Config
from trainer.training import start
from trainer.training.stopping import Stopping


def test_a_batch_larger_than_the_training_split_and_a_backbone_that_never_trains_are_told(
    command: Command, records: Path, tmp_path: Path
) -> None:
    small = ["--weights", "none", "--alpha", 0.35, "--image_size", 32, "--epochs", 1, "--batch_size", 512]
    small += ["--fine_tune_from_epoch", 1]
    done = command("trainer.task", "--data", records, "--model_dir", tmp_path / "model", *small)
    assert done.returncode == cli.EXIT_OK
    batch, backbone = (line for line in done.stderr.splitlines() if "larger than" in line or "never" in line)
    assert "the global batch of 512 is larger than the training split" in batch
    assert "--fine_tune_from_epoch 1 is beyond" in backbone


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


@pytest.mark.slow
def test_a_run_that_goes_on_does_not_need_what_it_began_with(
    command: Command, records: Path, tmp_path: Path
) -> None:
    model_dir, file = tmp_path / "model", tmp_path / "imagenet.h5"
    network = tf_keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, include_top=False, weights=None)
    network.save_weights(file)
    small = ["--weights", file, "--alpha", 0.35, "--image_size", 32, "--epochs", 1, "--batch_size", 8]
    words = ["trainer.launch", "--local_workers", 1, "--", "--data", records, *small]
    words += ["--model_dir", model_dir]
    assert command(*words).returncode == cli.EXIT_OK
    shutil.rmtree(model_dir / "export")
    file.unlink()
    again = command(*words)
    assert again.returncode == cli.EXIT_OK, again.stderr
    assert "resuming after step" in again.stderr
    shutil.rmtree(model_dir / "export")
    for checkpoint in (model_dir / "checkpoints").iterdir():
        checkpoint.unlink()
    lost = command(*words)
    assert lost.returncode == cli.EXIT_USER
    assert f"error: --weights {file}: there is no such file" in lost.stderr


@pytest.mark.parametrize("mistake", ["weights", "init_from"])
def test_what_a_run_begins_with_has_to_be_there_unless_a_checkpoint_may_be_taken_up(
    records: Path, tmp_path: Path, mistake: str
) -> None:
    flags = ["--data", str(records), "--model_dir", str(tmp_path), "--weights", "none"]
    settings = config.parse([*flags, f"--{mistake}", "nowhere"])
    info = data_info.read(str(records))
    with pytest.raises(UserError, match=f"--{mistake} nowhere"):
        start.look_for_beginning(settings, info, "job")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=f"--{mistake} nowhere"):
        start.look_for_beginning(settings, info, "job")
    (tmp_path / "checkpoints" / "step-00000008.npz").touch()
    assert f"--{mistake} nowhere" in str(start.look_for_beginning(settings, info, "job").mistake)
    anew = dataclasses.replace(settings, restart=True)
    for holder in (None, "", '{"run": "earlier", "id": 7}'):
        if holder is not None:
            (tmp_path / "run.json").write_text(holder)
        with pytest.raises(UserError, match=f"--{mistake} nowhere"):
            start.look_for_beginning(anew, info, "job")
    (tmp_path / "run.json").write_text('{"run": "job", "id": 7}')  # what it replaced is gone
    assert start.look_for_beginning(anew, info, "job").mistake


def test_a_checkpoint_of_another_run_does_not_excuse_what_the_run_begins_with(
    command: Command, records: Path, tmp_path: Path
) -> None:
    (tmp_path / "checkpoints").mkdir()
    np.savez(tmp_path / "checkpoints" / "step-00000008.npz", run=np.int64(7))
    small = ["--weights", "nowhere", "--alpha", 0.35, "--image_size", 32, "--epochs", 1, "--batch_size", 8]
    done = command("trainer.task", "--data", records, "--model_dir", tmp_path, *small)
    assert done.returncode == cli.EXIT_USER
    assert done.stderr.splitlines()[-1].endswith("--weights nowhere: there is no such file")


def test_a_mistake_of_a_restart_leaves_the_earlier_run_as_it_was(
    command: Command, records: Path, tmp_path: Path
) -> None:
    model_dir, weights = tmp_path / "model", tmp_path / "of-another-network.h5"
    claim_model_dir(Config(data="", model_dir=str(model_dir)), "data", True, "earlier")
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


def test_a_run_begins_with_the_weights_that_it_is_given(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(_: Config, classes: int, prior: list[float], file: str | None) -> tf_keras.Model:
        built_from.append((prior, file))
        return tf_keras.Sequential([tf_keras.layers.Dense(classes, name="logits", input_shape=[2])])

    def begun(*, network: tf_keras.Model, **_: object) -> SimpleNamespace:
        return SimpleNamespace(check_alike=lambda: None, to_the_end=lambda _: network.get_weights())

    info, export, file = data_info.read(str(records)), tmp_path / "export", tmp_path / "imagenet.h5"
    file.write_bytes(b"\x89HDF\r\n\x1a\n")
    built_from: list[tuple[list[float], str | None]] = []
    given = small(Config(data="", model_dir=""), len(info.vocabulary), [], None)
    tf.train.Checkpoint(weights=given.weights).write(str(export / "variables" / "variables"))
    (export / "model.json").write_text(json.dumps({"classes": info.vocabulary}))
    monkeypatch.setattr(model, "build", small)
    monkeypatch.setattr(start, "Run", begun)

    def begin(name: str, *words: str) -> Any:
        flags = ["--data", str(records), "--model_dir", str(tmp_path / name), "--batch_size", "8", *words]
        return start.train(config.parse(flags), Place(0, ()), Stopping(link.Near(None)))

    begin("one", "--weights", str(file))
    found = begin("other", "--init_from", str(export))
    assert built_from[1:] == [(info.prior, str(file)), (info.prior, None)]
    for mine, its in zip(found, given.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize("choice", ["auto", "imagenet"])
def test_a_run_that_starts_from_an_export_looks_for_no_weights_of_imagenet(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    def fetched(*_: object) -> None:
        raise UserError("the ImageNet weights cannot be fetched")

    info = data_info.read(str(records))
    (tmp_path / "model.json").write_text(json.dumps({"classes": info.vocabulary}))
    monkeypatch.setattr(weights, "resolve", fetched)
    flags = ["--data", str(records), "--model_dir", str(tmp_path / "model"), "--weights", choice]
    settings = config.parse([*flags, "--init_from", str(tmp_path)])
    assert start.look_for_beginning(settings, info, "job") == start.Beginning(None)
    assert not settings.takes_weights
    assert config.parse(flags).takes_weights
