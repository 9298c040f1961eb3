"""From an archive and an export to a submission: whole, in order, or not there at all."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from beam_jobs import predict, scoring
from tests.beam_jobs.making import noise, planet, truth
from tests.conftest import ROOT, Trained
from tests.conftest import archive as archive  # noqa: PLC0414 - the trained model's, not this folder's own


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str
    output: Path

    @property
    def rows(self) -> list[tuple[str, str]]:
        with self.output.open(encoding="utf-8", newline="") as file:
            header, *body = csv.reader(file)
        assert header == ["image_name", "tags"]
        return [(name, tags) for name, tags in body]

    @property
    def rejects(self) -> list[tuple[str, str]]:
        lines = (self.output.parent / f"{self.output.name}.rejects.jsonl").read_text("utf-8").splitlines()
        return [(line["name"], line["reason"]) for line in map(json.loads, lines)]


Run = Callable[..., Done]


CLASSES = ("agriculture", "clear", "primary", "water")
CONSTANT = "clear primary"


def export(folder: Path, weights: NDArray[np.float32]) -> Path:
    """An export whose scores tell every picture from the others, as those of a network of few steps do not.

    Args:
        folder: to make.
        weights: float32[16 * 16 * 3, classes], of every pixel's place.
    """
    import tensorflow as tf

    class Looking(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = tf.Variable(weights)

        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="rgb")])
        def look(self, rgb: Any) -> Any:
            small = tf.image.resize(tf.cast(rgb, tf.float32) / 255, [16, 16]) - 0.5
            return {"scores": tf.sigmoid(tf.reshape(small, [-1, 16 * 16 * 3]) @ self.weights)}

    looking = Looking()
    tf.saved_model.save(looking, str(folder), signatures={"rgb": looking.look})
    described = {
        "format_version": 1,
        "classes": CLASSES,
        "thresholds": [0.3, 0.5, 0.4, 0.6],
        "metrics": {"constant_tags": CONSTANT.split()},
    }
    (folder / "model.json").write_text(json.dumps(described))
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = np.random.default_rng(7).normal(0, 0.2, (16 * 16 * 3, 4)).astype(np.float32)
    return export(tmp_path_factory.mktemp("model") / "export", weights)


@pytest.fixture
def run(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Predicts in this process: `run("--images", folder, ...)`."""

    def go(*flags: object, model: Path = model, output: Path | None = None) -> Done:
        target = output or tmp_path / "out" / "submission.csv"
        capsys.readouterr()
        words = ["--model", model, "--output", target, *flags]
        code = predict.main([str(word) for word in words])
        said = capsys.readouterr()
        return Done(code, said.out, said.err, target)

    return go


@pytest.fixture
def chips(tmp_path: Path) -> Path:
    """A folder of seven chips of two sizes."""
    folder = tmp_path / "chips"
    folder.mkdir()
    for i in range(7):
        (folder / f"chip_{i}.jpg").write_bytes(planet(noise(i, 32, 32 + 8 * (i % 2))))
    return folder


def sample_of(path: Path, names: Iterable[str]) -> Path:
    path.write_text("image_name,tags\n" + "".join(f"{name},clear\n" for name in names), encoding="utf-8")
    return path


def is_one_sentence(done: Done) -> bool:
    return done.err.startswith("error: ") and done.err.count("\n") == 1 and done.out == ""


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.mark.parametrize("views", [1, 8])
def test_a_trained_models_rows_are_the_samples_names_in_its_order(
    views: int, run: Run, chips: Path, tmp_path: Path, trained: Trained
) -> None:
    names = [f"chip_{i}" for i in (5, 0, 3, 6, 1, 4, 2)]
    sample = sample_of(tmp_path / "sample.csv", names)
    done = run("--images", chips, "--sample_submission", sample, "--tta", views, model=trained.export)
    assert done.code == 0, done.err
    assert [name for name, _ in done.rows] == names
    known = set(scoring.read_model_info(str(trained.export)).classes)
    assert all(tags.split() and set(tags.split()) <= known for _, tags in done.rows)
    assert left_in(done.output.parent) == {"submission.csv"}
    assert "7 found, 7 scored, 0 rejected" in done.out
    assert str(done.output) in done.out


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
    table = pd.read_parquet(scores)
    assert list(table.columns) == ["image_name", *CLASSES]
    assert {str(kind) for kind in table.dtypes[1:]} == {"float32"}
    assert list(table["image_name"]) == [f"chip_{i}" for i in range(7)]
    scorer = scoring.Scorer(scoring.read_model_info(str(model)), 1)
    for i in range(7):
        found = table.iloc[i, 1:].to_numpy(np.float32)
        wanted = scorer.scores(truth((chips / f"chip_{i}.jpg").read_bytes())[np.newaxis])[0]
        np.testing.assert_allclose(found, wanted, atol=1e-5)
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


def test_a_corrupt_image_is_listed_and_its_row_has_the_constant_tags(
    run: Run, chips: Path, tmp_path: Path
) -> None:
    (chips / "cut.jpg").write_bytes(planet(noise(9))[:300])
    names = ["chip_1", "cut", "nowhere", "chip_0"]
    flags = ("--max_bad_fraction", 0.2, "--max_missing_fraction", 0.5)
    done = run("--images", chips, "--sample_submission", sample_of(tmp_path / "sample.csv", names), *flags)
    assert done.code == 0, done.err
    assert [name for name, _ in done.rows] == names
    assert dict(done.rows)["cut"] == dict(done.rows)["nowhere"] == CONSTANT
    assert sorted(done.rejects) == [("cut", "undecodable"), ("nowhere", "no_image")]
    assert "8 found, 7 scored, 1 rejected (1 undecodable)" in done.out
    assert "2 names" in done.out
    assert "5 images that the sample does not name" in done.out
    assert f"{done.output}.rejects.jsonl" in done.out


def test_an_earlier_list_of_rejects_does_not_outlive_a_run_without_any(run: Run, chips: Path) -> None:
    broken = chips / "broken.jpg"
    broken.write_bytes(b"")
    assert run("--images", chips, "--max_bad_fraction", 0.2).rejects == [("broken", "empty")]
    broken.unlink()
    done = run("--images", chips)
    assert left_in(done.output.parent) == {"submission.csv"}


def test_too_many_corrupt_images_fail_and_an_earlier_submission_stays(
    run: Run, chips: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out" / "submission.csv"
    output.parent.mkdir()
    output.write_text("earlier")
    (chips / "cut.jpg").write_bytes(planet(noise(9))[:300])
    done = run("--images", chips, "--scores", tmp_path / "scores.parquet", output=output)
    assert done.code == 2
    assert is_one_sentence(done), done.err
    assert "1 of 8 images cannot be used, more than --max_bad_fraction 0.01 allows" in done.err
    assert output.read_text() == "earlier"
    assert left_in(output.parent) == {"submission.csv", "submission.csv.rejects.jsonl"}
    assert not (tmp_path / "scores.parquet").exists()


def test_too_many_names_without_an_image_fail_and_nothing_is_written_but_their_list(
    run: Run, chips: Path, tmp_path: Path
) -> None:
    names = [f"chip_{i}" for i in range(9)]
    done = run("--images", chips, "--sample_submission", sample_of(tmp_path / "sample.csv", names))
    assert done.code == 2
    assert is_one_sentence(done), done.err
    assert "2 of 9 names of the sample have no usable image" in done.err
    assert left_in(done.output.parent) == {"submission.csv.rejects.jsonl"}
    assert sorted(done.rejects) == [("chip_7", "no_image"), ("chip_8", "no_image")]


def test_too_many_images_that_the_sample_does_not_name_fail(run: Run, chips: Path, tmp_path: Path) -> None:
    sample = sample_of(tmp_path / "sample.csv", ["chip_0"])
    done = run("--images", chips, "--sample_submission", sample, "--max_extra_fraction", 0.5)
    assert done.code == 2
    assert is_one_sentence(done), done.err
    assert "6 of 7 images are not named in the sample" in done.err
    assert left_in(done.output.parent) == set()


def test_images_of_which_none_can_be_used_fail_whatever_is_allowed(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "chips"
    folder.mkdir()
    (folder / "one.jpg").write_bytes(b"")
    done = run("--images", folder, "--max_bad_fraction", 1)
    assert done.code == 2
    assert "none of 1 images can be used" in done.err
    assert not done.output.exists()


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--model", "nowhere", "there is no model.json"),
        ("--images", "nowhere", "does not exist"),
        ("--sample_submission", "nowhere.csv", "does not exist"),
        ("--sample_submission", "chips", "cannot read"),
        ("--images", "", "--images is empty"),
        ("--output", "", "--output is empty"),
        ("--output", "chips", "is a folder"),
        ("--scores", "chips", "is a folder"),
        ("--scores", "out/submission.csv", "the same file"),
        ("--tta", "4", "--tta"),
        ("--max_bad_fraction", "2", "--max_bad_fraction"),
        ("--imagse", "chips", "--imagse"),
        ("--imag", "chips", "--imag"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_leaves_nothing_behind(
    flag: str, value: str, said: str, run: Run, chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = left_in(tmp_path)
    done = run("--images", chips, flag, value)
    assert done.code == 2
    assert is_one_sentence(done), done.err
    assert said in done.err
    assert left_in(tmp_path) == before
    assert len(left_in(chips)) == 7


def test_a_damaged_model_is_one_sentence_from_workers_of_their_own_and_leaves_no_half(
    model: Path, chips: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "export"
    shutil.copytree(model, damaged)
    (damaged / "saved_model.pb").write_bytes(b"\x00\x01 no model")
    flags = (
        *("--model", damaged, "--images", chips, "--output", tmp_path / "out" / "submission.csv"),
        *("--direct_running_mode", "multi_processing", "--direct_num_workers", 2),
    )
    words = [sys.executable, "-m", "beam_jobs.predict", *map(str, flags)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: --model {damaged} cannot be loaded")
    assert done.stderr.count("\n") == 1
    assert left_in(tmp_path / "out") == set()


def test_a_model_whose_training_diverged_is_one_sentence(run: Run, chips: Path, tmp_path: Path) -> None:
    diverged = export(tmp_path / "export", np.full((16 * 16 * 3, 4), np.nan, np.float32))
    done = run("--images", chips, model=diverged)
    assert done.code == 2
    assert is_one_sentence(done), done.err
    assert "gives scores that are no numbers" in done.err
    assert left_in(done.output.parent) == set()


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


def test_images_in_a_zip_score_as_those_in_a_folder(run: Run, chips: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "chips.zip", "w") as packed:
        for path in sorted(chips.iterdir()):
            packed.write(path, f"test-jpg/{path.name}")
    folder = run("--images", chips).rows
    done = run("--images", tmp_path / "chips.zip", output=tmp_path / "zipped.csv")
    assert done.code == 0, done.err
    assert done.rows == folder


def test_what_an_interrupted_run_left_does_no_harm_and_goes_away(run: Run, chips: Path) -> None:
    first = run("--images", chips)
    wanted = first.output.read_bytes()
    first.output.unlink()
    staging = first.output.with_name("submission.csv.partial")
    (staging / "progress").mkdir(parents=True)
    (staging / "scores-00000.npz").write_bytes(b"half")
    (staging / "scores-00007.npz").write_bytes(b"of another list")
    (staging / "progress" / "0").write_text("12345")
    first.output.with_name("submission.csv.part").write_text("half")
    done = run("--images", chips)
    assert done.code == 0, done.err
    assert done.output.read_bytes() == wanted
    assert left_in(done.output.parent) == {"submission.csv"}


def test_ctrl_c_ends_with_130_and_leaves_nothing_and_the_same_command_then_works(
    model: Path, chips: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out" / "submission.csv"
    flags = ("--model", model, "--images", chips, "--output", output)
    words = [sys.executable, "-m", "beam_jobs.predict", *map(str, flags)]
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    staging = output.with_name("submission.csv.partial")
    deadline = time.monotonic() + 60
    while not staging.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(1.0)  # by now the pipeline runs: the model takes seconds to load
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said == "interrupted\n"
    assert left_in(output.parent) == set()
    assert subprocess.run(words, cwd=ROOT, capture_output=True, timeout=120, check=False).returncode == 0
    assert left_in(output.parent) == {"submission.csv"}


@pytest.mark.parametrize("mode", ["multi_processing", "multi_threading"])
def test_several_workers_write_the_same_submission(
    mode: str, run: Run, chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = run("--images", chips).rows
    monkeypatch.setattr(scoring, "LIST_IMAGES", 3)
    done = run(
        *("--images", chips, "--direct_running_mode", mode, "--direct_num_workers", 2),
        output=tmp_path / "several.csv",
    )
    assert done.code == 0, done.err
    assert done.rows == wanted
    assert not (tmp_path / "several.csv.partial").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_that_is_denied_is_one_sentence(run: Run, chips: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    done = run("--images", chips, output=locked / "below" / "submission.csv")
    assert done.code == 2
    assert "access is denied" in done.err


def test_an_output_below_a_file_is_one_sentence(run: Run, chips: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = run("--images", chips, output=tmp_path / "file" / "submission.csv")
    assert done.code == 2
    assert is_one_sentence(done), done.err
    assert (tmp_path / "file").read_text() == "x"
