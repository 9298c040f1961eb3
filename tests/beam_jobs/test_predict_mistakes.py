"""What prediction refuses, lists or leaves out, and that an earlier submission then stays."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from beam_jobs import predict, sources
from beam_jobs.runners import choosing, running
from beam_jobs.scoring import engines
from beam_jobs.scoring.scorer import Scorer
from canopy.cli import TryAgainError, UserError
from tests.beam_jobs.making import noise, planet
from tests.beam_jobs.predicting import (
    CONSTANT,
    Run,
    export,
    is_one_sentence,
    left_in,
    sample_of,
)
from tests.beam_jobs.predicting import chips as chips
from tests.beam_jobs.predicting import model as model
from tests.beam_jobs.predicting import run as run
from tests.conftest import ROOT
from tests.conftest import archive as archive  # the trained model's, not this folder's own


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


def test_one_name_and_one_image_are_told_as_one(run: Run, chips: Path, tmp_path: Path) -> None:
    sample = sample_of(tmp_path / "sample.csv", [*(f"chip_{i}" for i in range(6)), "nowhere"])
    done = run("--images", chips, "--sample_submission", sample, "--max_missing_fraction", 0.5)
    assert done.code == 0, done.err
    assert "missing    1 name without a usable image got the constant tags: nowhere\n" in done.out
    assert "left out   1 image that the sample does not name\n" in done.out
    assert f"rejects    {done.output}.rejects.jsonl\n" in done.out
    assert done.rejects == [("nowhere", "no_image")]


def test_an_earlier_list_of_rejects_does_not_outlive_a_run_without_any(run: Run, chips: Path) -> None:
    broken = chips / "broken.jpg"
    broken.write_bytes(b"")
    done = run("--images", chips, "--max_bad_fraction", 0.2)
    assert done.rejects == [("broken", "empty")]
    assert f"rejects    {done.output}.rejects.jsonl" in done.out
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
    assert "(the first: cut, undecodable: OSError: " in done.err
    assert f"; see {output}.rejects.jsonl)" in done.err
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


def test_too_many_names_whose_image_turns_out_to_be_of_no_use_fail_as_those_without_one(
    run: Run, chips: Path, tmp_path: Path
) -> None:
    (chips / "cut.jpg").write_bytes(planet(noise(9))[:300])
    sample = sample_of(tmp_path / "sample.csv", [path.stem for path in chips.iterdir()])
    done = run("--images", chips, "--sample_submission", sample, "--max_bad_fraction", 0.2)
    assert done.code == 2
    assert is_one_sentence(done), done.err
    assert "1 of 8 names of the sample have no usable image" in done.err
    assert left_in(done.output.parent) == {"submission.csv.rejects.jsonl"}
    assert done.rejects == [("cut", "undecodable")]


def test_a_sample_that_names_folders_is_told_to_leave_them_out(run: Run, chips: Path, tmp_path: Path) -> None:
    sample = sample_of(tmp_path / "sample.csv", [f"test-jpg/{path.name}" for path in chips.iterdir()])
    done = run("--images", chips, "--sample_submission", sample)
    assert done.code == 2
    assert "(an image's name is without its folder: take the folders out of the sample)" in done.err


@pytest.mark.parametrize("wrong", ["names", "images"])
def test_what_the_names_tell_already_ends_a_job_before_it_scores(
    wrong: str, run: Run, chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreached(*_: object, **__: object) -> None:
        raise AssertionError("it scores")

    monkeypatch.setattr(predict, "build", unreached)
    names = [path.stem for path in chips.iterdir()]
    if wrong == "names":
        names += ["chip_7", "chip_8"]
    else:
        shutil.copytree(chips, chips / "again")
    done = run("--images", chips, "--sample_submission", sample_of(tmp_path / "sample.csv", names))
    assert done.code == 2
    assert is_one_sentence(done), done.err
    assert {
        "names": "2 of 9 names of the sample have no usable image",
        "images": "7 of 14 images cannot be used",
    }[wrong] in done.err
    first = {"names": "chip_7; ", "images": "chip_0, duplicate_name: "}[wrong]
    assert f"(the first: {first}" in done.err
    assert f"; see {done.output}.rejects.jsonl)" in done.err
    assert left_in(done.output.parent) == {"submission.csv.rejects.jsonl"}
    assert {reason for _, reason in done.rejects} == {"no_image" if wrong == "names" else "duplicate_name"}


def test_too_many_images_that_the_sample_does_not_name_fail(run: Run, chips: Path, tmp_path: Path) -> None:
    sample = sample_of(tmp_path / "sample.csv", ["chip_0"])
    done = run("--images", chips, "--sample_submission", sample, "--max_extra_fraction", 0.5)
    assert done.code == 2
    assert is_one_sentence(done), done.err
    assert "6 of 7 images are not named in the sample" in done.err
    assert "(the first: chip_1)" in done.err
    assert left_in(done.output.parent) == set()


def test_as_many_as_are_allowed_are_no_mistake_however_the_fraction_is_rounded(
    run: Run, chips: Path, tmp_path: Path
) -> None:
    for i in range(29):
        (chips / f"empty_{i}.jpg").write_bytes(b"")
    for i in range(7, 21):
        (chips / f"chip_{i}.jpg").write_bytes(planet(noise(i)))
    sample = sample_of(tmp_path / "sample.csv", [path.stem for path in chips.iterdir()])
    flags = ("--images", chips, "--sample_submission", sample)
    assert run(*flags, "--max_bad_fraction", 0.58, "--max_missing_fraction", 0.58).code == 0
    done = run(*flags, "--max_bad_fraction", 0.57, "--max_missing_fraction", 0.58)
    assert "29 of 50 images cannot be used, more than --max_bad_fraction 0.57 allows" in done.err


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
        ("--model", "", "--model is empty"),
        ("--sample_submission", "", "--sample_submission is empty"),
        ("--output", "chips", "is a folder"),
        ("--scores", "chips", "is a folder"),
        ("--scores", "out/submission.csv", "the same file"),
        ("--scores", "out/submission.csv.rejects.jsonl", "lists the rejects"),
        ("--output", "results/", "names a folder"),
        ("--output", "gs://here/results/", "names a folder"),
        ("--scores", "gs://here", "names a folder"),
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


@pytest.mark.parametrize("flag", ["model", "images", "output"])
def test_dataflow_is_not_sent_to_look_for_paths_of_this_machine(
    flag: str, run: Run, chips: Path, model: Path, tmp_path: Path
) -> None:
    here = {"model": model, "images": chips, "output": tmp_path / "out" / "submission.csv"}
    places = {name: path if name == flag else f"gs://here/{name}" for name, path in here.items()}
    done = run(
        *("--runner=DataflowRunner", "--project=p", "--region=r", "--temp_location=gs://here/t"),
        *("--images", places["images"]),
        model=places["model"],
        output=places["output"],
    )
    assert done.code == 2
    assert is_one_sentence(done), done.err
    assert f"--{flag}: {here[flag]} is on this machine, where Dataflow's workers cannot reach it" in done.err
    assert left_in(tmp_path) == {"chips"}


def test_a_pattern_that_the_shell_made_paths_of_is_told_in_a_few_words(run: Run, chips: Path) -> None:
    first, *others = sorted(chips.iterdir())
    done = run("--images", first, *others)
    assert done.code == 2
    assert done.err == (
        f"error: unknown flag or value: {others[0]} {others[1]} {others[2]} and 3 more "
        "(see --help; --images takes one path each time, a pattern in quotes)\n"
    )


def test_a_damaged_model_is_one_sentence_from_workers_of_their_own_and_leaves_no_half(
    model: Path, chips: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "export"
    shutil.copytree(model, damaged)
    (damaged / "saved_model.pb").write_bytes(b"\x00\x01 no model")
    (damaged / "model.tflite").unlink()
    flags = (
        *("--model", damaged, "--images", chips, "--output", tmp_path / "out" / "submission.csv"),
        *("--direct_running_mode", "multi_processing", "--direct_num_workers", 2),
    )
    words = [sys.executable, "-m", "beam_jobs.predict", *map(str, flags)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    *progress, said = done.stderr.splitlines()  # a slow machine shows progress
    assert said.startswith(f"error: --model {damaged} cannot be loaded")
    assert all(line.startswith("scoring: ") for line in progress)
    assert left_in(tmp_path / "out") == set()


@pytest.mark.parametrize("step", ["load", "score"])
@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("it is damaged"), 2, "error: it is damaged\n"),
        (TryAgainError("the store is busy"), 75, "out of reach for now: the store is busy\n"),
    ],
)
def test_what_ends_a_workers_work_ends_the_command_as_what_it_was(
    step: str, error: Exception, code: int, said: str, run: Run, chips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(engines if step == "load" else Scorer, step, fail)
    done = run("--images", chips)
    assert (done.code, done.err) == (code, said)
    assert left_in(done.output.parent) == set()


def test_a_runner_that_ends_early_without_a_word_leaves_no_submission(
    run: Run, chips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "run", lambda *_, **__: None)
    done = run("--images", chips)
    assert (done.code, done.err) == (75, f"out of reach for now: {running.ENDED_EARLY}\n")
    assert left_in(done.output.parent) == set()


def test_an_engine_asked_for_by_name_is_not_replaced_in_processes_beside_beam_either(
    run: Run, chips: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "MANY_IMAGES", 1)
    lacking = Path(shutil.copytree(model, tmp_path / "export"))
    (lacking / "model.tflite").unlink()
    done = run("--images", chips, "--engine", "tflite", "--direct_num_workers", 2, model=lacking)
    assert done.code == 2
    assert is_one_sentence(done), done.err
    assert "cannot be loaded (the export has no model.tflite)" in done.err
    assert left_in(done.output.parent) == set()


@pytest.mark.parametrize("engine", ["tflite", "savedmodel"])
@pytest.mark.parametrize("is_done", [True, False])
@pytest.mark.parametrize("many", [3_000, 1], ids=["threads", "processes"])
def test_a_model_exported_again_before_it_is_loaded_makes_no_submission_and_is_worth_another_try(
    many: int,
    is_done: bool,
    engine: str,
    run: Run,
    model: Path,
    chips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fresh = Path(shutil.copytree(model, tmp_path / "export"))

    def exported_again(_: object) -> None:
        if not is_done:  # between two renames of folders there is none
            fresh.rename(tmp_path / "export.earlier")
            return
        described = json.loads((fresh / "model.json").read_text())
        (fresh / "model.json").write_text(json.dumps({**described, "thresholds": [0.9] * 4}))

    monkeypatch.setattr(sources, "unpack", exported_again)
    monkeypatch.setattr(choosing, "MANY_IMAGES", many)
    done = run("--images", chips, "--direct_num_workers", 2, "--engine", engine, model=fresh)
    assert done.code == 75
    said = f"--model {fresh} was exported again meanwhile: predict once more\n"
    assert done.err == f"out of reach for now: {said}"
    assert left_in(done.output.parent) == set()


def test_a_model_whose_training_diverged_is_one_sentence(run: Run, chips: Path, tmp_path: Path) -> None:
    diverged = export(tmp_path / "export", np.full((16 * 16 * 3, 4), np.nan, np.float32))
    done = run("--images", chips, model=diverged)
    assert done.code == 2
    assert is_one_sentence(done), done.err
    assert "gives scores that are no numbers" in done.err
    assert left_in(done.output.parent) == set()


def test_a_tag_named_as_the_names_column_is_no_matter_but_for_the_scores(
    run: Run, chips: Path, model: Path, tmp_path: Path
) -> None:
    named = Path(shutil.copytree(model, tmp_path / "export"))
    info = json.loads((named / "model.json").read_text())
    info["classes"][0] = "image_name"
    (named / "model.json").write_text(json.dumps(info))
    done = run("--images", chips, "--scores", tmp_path / "scores.parquet", model=named)
    assert done.code == 2
    assert is_one_sentence(done), done.err
    assert "the model has a tag image_name" in done.err
    assert run("--images", chips, model=named).code == 0
