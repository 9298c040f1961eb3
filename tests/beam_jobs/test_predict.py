"""From an archive and an export to a submission: in order, complete, the same however it is run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from beam_jobs import predict
from beam_jobs.runners import choosing
from beam_jobs.scoring import apart, engines, worklist
from canopy import machine
from canopy.cli import UserError
from canopy.model_info import ModelInfo
from tests.beam_jobs.making import Shown, noise, planet, truth
from tests.beam_jobs.predicting import (
    CLASSES,
    Run,
    left_in,
    sample_of,
)
from tests.beam_jobs.predicting import chips as chips
from tests.beam_jobs.predicting import model as model
from tests.beam_jobs.predicting import run as run
from tests.beam_jobs.runners.test_processes_lost import SECOND_ENDS, lists_processes, started_as, working_for
from tests.conftest import ROOT, Trained
from tests.conftest import archive as archive  # the trained model's, not this folder's own


@pytest.mark.parametrize("views", [1, 8])
def test_a_trained_models_rows_are_the_samples_names_in_its_order(
    views: int, run: Run, chips: Path, tmp_path: Path, trained: Trained
) -> None:
    names = [f"chip_{i}" for i in (5, 0, 3, 6, 1, 4, 2)]
    sample = sample_of(tmp_path / "sample.csv", names)
    done = run("--images", chips, "--sample_submission", sample, "--tta", views, model=trained.export)
    assert done.code == 0, done.err
    assert [name for name, _ in done.rows] == names
    known = set(engines.read_info(str(trained.export)).classes)
    assert all(tags.split() and set(tags.split()) <= known for _, tags in done.rows)
    assert left_in(done.output.parent) == {"submission.csv"}
    assert "7 found, 7 scored, 0 rejected" in done.out
    assert str(done.output) in done.out


def test_while_images_are_scored_the_driver_holds_none_of_them(
    run: Run, chips: Path, tmp_path: Path, held: list[str]
) -> None:
    names = [f"chip_{i}" for i in range(7)]
    done = run("--images", chips, "--sample_submission", sample_of(tmp_path / "sample.csv", names))
    assert done.code == 0, done.err
    assert not [name for name in held if name in names]


def test_without_a_sample_the_rows_are_all_images_by_name(run: Run, chips: Path) -> None:
    done = run("--images", chips)
    assert done.code == 0, done.err
    assert [name for name, _ in done.rows] == [f"chip_{i}" for i in range(7)]


def test_the_scores_are_the_models_for_the_picture_that_pillow_shows(
    run: Run, chips: Path, tmp_path: Path, model: Path
) -> None:
    scores = tmp_path / "elsewhere" / "scores.parquet"
    done = run("--images", chips, "--scores", scores)
    assert done.code == 0, done.err
    assert done.out.endswith(f"\nscores     {scores}\noutput     {done.output}\n")
    table = pd.read_parquet(scores)
    assert list(table.columns) == ["image_name", *CLASSES]
    assert {str(kind) for kind in table.dtypes[1:]} == {"float32"}
    assert list(table["image_name"]) == [f"chip_{i}" for i in range(7)]
    import tensorflow as tf

    served = tf.saved_model.load(str(model)).signatures["rgb"]
    for i in range(7):
        found = table.iloc[i, 1:].to_numpy(np.float32)
        pixels = truth((chips / f"chip_{i}.jpg").read_bytes())[np.newaxis]
        wanted = served(rgb=tf.constant(pixels))["scores"].numpy()[0]
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        limits = (0.3, 0.5, 0.4, 0.6)
        chosen = [name for name, score, limit in zip(CLASSES, found, limits, strict=True) if score >= limit]
        assert not chosen or done.rows[i][1] == " ".join(chosen)
    assert table.iloc[:, 1:].std().min() > 0.01


def test_averaged_over_eight_views_a_flipped_archive_scores_as_the_archive_does(
    run: Run, tmp_path: Path
) -> None:
    for name in ("plain", "flipped"):
        (tmp_path / name).mkdir()
    for i in range(4):
        pixels = np.kron(noise(i, 8, 8), np.ones((8, 8, 1), np.uint8))  # whole blocks: JPEG flips them alike
        (tmp_path / "plain" / f"chip_{i}.jpg").write_bytes(planet(pixels, quality=100))
        (tmp_path / "flipped" / f"chip_{i}.jpg").write_bytes(planet(pixels[:, ::-1], quality=100))
    found = {}
    for name in ("plain", "flipped"):
        for views in (1, 8):
            path = tmp_path / f"{name}-{views}.parquet"
            done = run("--images", tmp_path / name, "--scores", path, "--tta", views)
            assert done.code == 0, done.err
            found[name, views] = pd.read_parquet(path).iloc[:, 1:].to_numpy()
    np.testing.assert_allclose(found["plain", 8], found["flipped", 8], atol=1e-3)
    assert np.abs(found["plain", 1] - found["plain", 8]).max() > 0.01


def test_of_two_folders_with_the_same_name_in_both_the_first_is_kept(
    run: Run, chips: Path, tmp_path: Path
) -> None:
    second = tmp_path / "more"
    second.mkdir()
    (second / "chip_3.jpg").write_bytes(planet(noise(33, 32, 32)))
    (second / "other.jpg").write_bytes(planet(noise(34, 32, 32)))
    alone = run("--images", chips, "--scores", tmp_path / "alone.parquet")
    # The order of the paths decides, not that of the flags.
    both = run(
        *("--images", second, "--images", chips, "--scores", tmp_path / "both.parquet"),
        *("--max_bad_fraction", 0.2),
    )
    assert (alone.code, both.code) == (0, 0), both.err
    assert both.rejects == [("chip_3", "duplicate_name")]
    assert [name for name, _ in both.rows] == [*(f"chip_{i}" for i in range(7)), "other"]
    tables = [pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("alone", "both")]
    np.testing.assert_allclose(
        tables[0].iloc[3, 1:].astype(float), tables[1].iloc[3, 1:].astype(float), atol=1e-5
    )


def test_beam_may_be_told_to_require_the_type_of_every_step(run: Run, chips: Path) -> None:
    done = run("--images", chips, "--type_check_strictness", "ALL_REQUIRED", "--runtime_type_check")
    assert done.code == 0, done.err


def test_images_in_an_archive_score_as_those_in_a_folder(run: Run, chips: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "chips.zip", "w") as packed:
        for path in sorted(chips.iterdir()):
            packed.write(path, f"test-jpg/{path.name}")
    with tarfile.open(tmp_path / "chips.tar.gz", "w:gz") as tar:
        tar.add(chips, "test-jpg")
    folder = run("--images", chips).rows
    for name in ("chips.zip", "chips.tar.gz"):
        done = run("--images", tmp_path / name, output=tmp_path / "out" / f"{name}.csv")
        assert done.code == 0, done.err
        assert done.rows == folder
    assert left_in(tmp_path / "out") == {"submission.csv", "chips.zip.csv", "chips.tar.gz.csv"}


def test_what_an_interrupted_run_left_does_no_harm_and_goes_away(run: Run, chips: Path) -> None:
    first = run("--images", chips)
    wanted = first.output.read_bytes()
    first.output.unlink()
    staging = first.output.with_name("submission.csv.partial")
    (staging / "job-0" / "below").mkdir(parents=True)
    (staging / "run-0").touch()
    (staging / "lock").touch()
    (staging / "job-0" / "scores-00000.npz").write_bytes(b"half")
    (staging / "job-0" / "below" / "scores-00007.npz").write_bytes(b"of another list")
    first.output.with_name("submission.csv.part").write_text("half")
    done = run("--images", chips)
    assert done.code == 0, done.err
    assert done.output.read_bytes() == wanted
    assert left_in(done.output.parent) == {"submission.csv"}


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "stopped by SIGTERM")],
)
def test_a_signal_ends_it_and_leaves_nothing_and_the_same_command_then_works(
    number: signal.Signals, code: int, word: str, model: Path, chips: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out" / "submission.csv"
    # TensorFlow takes seconds to load, so the signal comes while the pipeline runs.
    flags = ("--model", model, "--images", chips, "--output", output, "--engine", "savedmodel")
    words = [sys.executable, "-m", "beam_jobs.predict", *map(str, flags)]
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    staging = output.with_name("submission.csv.partial")
    deadline = time.monotonic() + 60
    while not staging.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(1.0)  # by now the pipeline runs: the model takes seconds to load
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert said == f"{word}\n"
    assert left_in(output.parent) == set()
    assert subprocess.run(words, cwd=ROOT, capture_output=True, timeout=120, check=False).returncode == 0
    assert left_in(output.parent) == {"submission.csv"}


def test_processes_beside_beam_write_the_same_submission_and_rejects(
    run: Run, chips: Path, tmp_path: Path, shown: list[Shown], monkeypatch: pytest.MonkeyPatch
) -> None:
    (chips / "cut.jpg").write_bytes(planet(noise(99))[:300])
    (chips / "large.jpg").write_bytes(planet(noise(98, 64, 64)))
    flags = ("--images", chips, "--max_bad_fraction", 0.5, "--tta", 8, "--max_pixels", 4000)
    tables = [tmp_path / "one.parquet", tmp_path / "other.parquet"]
    wanted = run(*flags, "--scores", tables[0])
    monkeypatch.setattr(choosing, "MANY_IMAGES", 1)
    monkeypatch.setattr(apart, "PIECE_PIXELS", 3 * 16**2)
    workers = ("--direct_num_workers", 2, "--scores", tables[1])
    done = run(*flags, *workers, output=tmp_path / "apart.csv")
    assert done.code == 0, done.err
    assert done.rows == wanted.rows
    assert tables[0].read_bytes() == tables[1].read_bytes()
    rejects = [Path(f"{one.output}.rejects.jsonl").read_text() for one in (wanted, done)]
    assert rejects[0] == rejects[1]
    assert wanted.rejects == [("cut", "undecodable"), ("large", "too_large")]
    assert shown == [("scoring", 9, 9)] * 2
    assert "engine     TensorFlow Lite" in done.out
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("least", ["MANY_IMAGES", "MANY_BYTES"])
@pytest.mark.parametrize(("engine", "scorer"), [("auto", "FedScorer"), ("tflite", "ApartScorer")])
def test_what_may_use_a_gpu_computes_in_one_process_and_others_make_its_pictures(
    engine: str, scorer: str, least: str, run: Run, chips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise UserError("processes are started")

    monkeypatch.setattr(choosing, least, 1)
    monkeypatch.setattr("beam_jobs.scoring.apart.LEAST_IMAGES", 1)
    monkeypatch.setattr(engines, "has_gpu", lambda: True)
    monkeypatch.setattr(predict, scorer, refused)
    done = run("--images", chips, "--direct_num_workers", 2, "--engine", engine)
    assert "processes are started" in done.err, done.err


def test_the_saved_model_fed_by_processes_gives_what_it_gives_by_itself(
    run: Run, chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--images", chips, "--engine", "savedmodel", "--tta", 8, "--direct_num_workers", 2)
    tables = [tmp_path / "one.parquet", tmp_path / "other.parquet"]
    wanted = run(*flags, "--scores", tables[0])
    monkeypatch.setattr(choosing, "MANY_IMAGES", 1)
    done = run(*flags, "--scores", tables[1], output=tmp_path / "fed.csv")
    assert done.rows == wanted.rows
    assert tables[0].read_bytes() == tables[1].read_bytes()
    assert "engine     SavedModel on the processor" in done.out
    assert not multiprocessing.active_children()


def test_on_many_cores_few_images_are_worth_few_engines(
    run: Run, chips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []
    load = engines.load

    def noted(info: ModelInfo, choice: str, threads: int) -> engines.Engines:
        loaded.append(threads)
        return load(info, choice, threads)

    monkeypatch.setattr(machine, "cores", lambda: 128)
    monkeypatch.setattr(engines, "load", noted)
    assert run("--images", chips).code == 0
    monkeypatch.setattr(predict, "ENGINE_IMAGES", 1)
    assert run("--images", chips).code == 0
    monkeypatch.setattr(predict, "MOST_ENGINES", 5)
    assert run("--images", chips).code == 0
    monkeypatch.setattr(machine, "memory", lambda: 100.0 * 2**20)  # room for two of 24 MiB in half of it
    assert run("--images", chips).code == 0
    assert loaded == [1, 7, 5, 2]


@lists_processes
@pytest.mark.parametrize("engine", ["auto", "savedmodel"])
def test_processes_lost_amid_scoring_are_one_sentence_and_leave_no_submission(
    engine: str, run: Run, chips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--images", chips, "--direct_num_workers", 2, "--engine", engine)
    monkeypatch.setattr(choosing, "MANY_IMAGES", 1)
    monkeypatch.setattr(apart, "PIECE_PIXELS", 3 * 16**2)

    def kill_both() -> None:  # of so few images one does all, if the other is gone before it has any
        while len(found := working_for(os.getpid())) < 2:
            time.sleep(0.01)
        for process in found:
            os.kill(process, signal.SIGKILL)

    killer = threading.Thread(target=kill_both, daemon=True)
    killer.start()
    done = run(*flags)
    killer.join(60)
    assert done.code == 2
    assert "was killed" in done.err.splitlines()[-1]
    assert left_in(done.output.parent) == set()
    assert run(*flags).code == 0


def test_a_process_lost_at_the_start_leaves_no_other_that_the_command_would_wait_for(
    run: Run, chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "MANY_IMAGES", 1)
    monkeypatch.setattr(apart, "LEAST_IMAGES", 1)
    with started_as(SECOND_ENDS, tmp_path):
        done = run("--images", chips, "--direct_num_workers", 2)
        assert done.code == 2
        assert "was killed" in done.err.splitlines()[-1]


@pytest.mark.parametrize("mode", ["multi_processing", "multi_threading"])
def test_several_workers_write_the_same_submission(
    mode: str, run: Run, chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = run("--images", chips).rows
    monkeypatch.setattr(worklist, "LEAST_IMAGES", 3)
    done = run(
        *("--images", chips, "--direct_running_mode", mode, "--direct_num_workers", 2),
        output=tmp_path / "several.csv",
    )
    assert done.code == 0, done.err
    assert done.rows == wanted
    assert not (tmp_path / "several.csv.partial").exists()
