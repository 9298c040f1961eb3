"""What ends a job: one clear sentence, and nothing lost that was there before."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from beam_jobs import preprocess
from beam_jobs.runners import running
from tests.beam_jobs.making import Archive, Run, noise, planet


def test_too_many_rejects_end_the_job_with_their_list_and_no_marker(archive: Archive, run: Run) -> None:
    archive.fill(20)
    archive.put("cut", planet(noise(1))[:300])
    done = run(archive)
    assert done.code == 2
    assert "1 of 21 images" in done.err
    assert [row["name"] for row in done.rejects] == ["cut"]
    assert not (done.folder / "dataset_info.json").exists()
    assert not done.shards
    assert run(archive, "--max_bad_fraction", "0.1").code == 0


def test_too_many_rejects_by_their_names_end_the_job_before_it_converts(
    archive: Archive, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreached(*_: object, **__: object) -> None:
        raise AssertionError("it converts")

    monkeypatch.setattr(preprocess, "build", unreached)
    archive.fill(3).put("unlabelled", planet(noise(9)), None)
    done = run(archive)
    assert done.code == 2
    assert "1 of 4 images cannot be used" in done.err
    assert [row["reason"] for row in done.rejects] == ["no_label"]


def test_as_many_rejects_as_are_allowed_are_no_mistake(archive: Archive, run: Run) -> None:
    archive.fill(71)
    for i in range(29):
        archive.put(f"empty_{i}", b"")
    done = run(archive, "--max_bad_fraction", "0.28")
    assert done.code == 2
    assert "29 of 100 images cannot be used, more than --max_bad_fraction 0.28 allows" in done.err
    assert run(archive, "--max_bad_fraction", "0.29").code == 0


def test_images_of_which_none_can_be_used_are_a_mistake_whatever_is_allowed(
    archive: Archive, run: Run
) -> None:
    archive.put("one", b"")
    archive.put("two", b"")
    done = run(archive, "--max_bad_fraction", "1")
    assert done.code == 2
    where = done.folder / "rejects.jsonl"
    told = f"none of 2 images can be used; each is in {where} (the first: one, empty: the file is empty)"
    assert done.err == f"error: {told}\n"


def test_images_over_the_pixel_limit_are_told_with_the_flag_that_sets_it(archive: Archive, run: Run) -> None:
    archive.put("scene", planet(noise(1, 40, 50)))
    done = run(archive, "--max_pixels", "1999")
    assert done.code == 2
    assert "(the first: scene, too_large: 50 x 40 pixels, more than --max_pixels 1,999)" in done.err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--images", "nowhere"], "nowhere does not exist"),
        (["--labels", "nowhere.csv"], "nowhere.csv: it does not exist"),
        (["--splits", "train=0.5"], "add up to 0.5"),
        (["--splits", "train"], "not like train=0.9"),
        (["--splits", "train=1.5,validation=-0.5"], "not above 0"),
        (["--seed", "x"], "--seed"),
        (["--num_shards", "0"], "--num_shards"),
        (["--num_shards", "2", "--shard_mb", "3"], "not allowed with"),
        (["--jpeg_quality", "101"], "from 1 to 100"),
        (["--max_bad_fraction", "2"], "from 0 to 1"),
        (["--image_format", "gif"], "--image_format"),
        (["--chroma", "422"], "--chroma"),
        (["--dataset", "../x"], "--dataset"),
        (["--shard_mbs", "3"], "--shard_mbs"),
        (["--direct_num_workers", "many"], "--direct_num_workers"),
        (["--vocabulary", "nowhere.txt"], "nowhere.txt: it does not exist"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    archive: Archive, run: Run, flags: list[str], said: str
) -> None:
    done = run(archive.fill(3), *flags)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not done.folder.exists()


def test_a_csv_without_the_columns_is_refused(archive: Archive, run: Run) -> None:
    archive.fill(3)
    archive.labels.write_text("name,labels\ntrain_0,clear\n")
    done = run(archive)
    assert done.code == 2
    assert "has no column image_name" in done.err


def test_rows_that_contradict_each_other_are_refused(archive: Archive, run: Run) -> None:
    archive.fill(3)
    archive.rows.append(("train_0", "water water agriculture primary clear"))
    archive.write_labels()
    done = run(archive)
    assert done.code == 2
    assert "'train_0'" in done.err


def test_a_whole_data_set_is_replaced_only_on_request(archive: Archive, run: Run) -> None:
    archive.fill(20)
    first = run(archive, "--num_shards", "4")
    (first.folder / "mine.txt").write_text("a stranger's file")
    again = run(archive)
    assert again.code == 2
    assert "--overwrite" in again.err
    third = run(archive, "--overwrite", "--num_shards", "2", "--dataset", "forest")
    assert third.code == 0
    assert [name for name in third.shards if "planet" in name] == []
    assert len(third.shards) == 3
    assert (third.folder / "mine.txt").read_text() == "a stranger's file"


def test_a_whole_data_set_is_told_before_images_are_looked_for(
    archive: Archive, run: Run, tmp_path: Path
) -> None:
    run(archive.fill(6))
    again = run(archive, "--images", str(tmp_path / "nowhere"))
    assert again.code == 2
    assert "--overwrite replaces it" in again.err
    assert "nowhere does not exist" in run(archive, "--images", str(tmp_path / "nowhere"), "--overwrite").err


def test_a_replacement_that_fails_leaves_the_earlier_data_set_whole(archive: Archive, run: Run) -> None:
    archive.fill(20)
    before = run(archive, "--num_shards", "4")
    told = {path.name: path.read_bytes() for path in before.folder.iterdir()}
    for i in range(20):
        archive.put(f"cut_{i}", planet(noise(i))[:400])
    failed = run(archive, "--overwrite", "--num_shards", "2")
    assert failed.code == 2
    assert "rejects.failed.jsonl" in failed.err
    lines = (before.folder / "rejects.failed.jsonl").read_text().splitlines()
    assert len(lines) == 20
    there = {path.name: path.read_bytes() for path in before.folder.iterdir()}
    assert there.pop("rejects.failed.jsonl")
    assert there == told
    assert run(archive, "--overwrite", "--num_shards", "2", "--max_bad_fraction", "0.6").code == 0
    assert not (before.folder / "rejects.failed.jsonl").exists()


@pytest.mark.parametrize(
    ("key", "value"), [("images", None), ("splits", []), ("rejects", 7), ("run", {"id": "a"})]
)
def test_what_this_run_wrote_and_a_hand_then_spoilt_is_one_sentence_and_stays(
    archive: Archive, run: Run, monkeypatch: pytest.MonkeyPatch, key: str, value: object
) -> None:
    monkeypatch.setenv("CANOPY_RUN_ID", "a")
    first = run(archive.fill(3))
    told = first.folder / "canopy.json"
    told.write_text(json.dumps({**first.canopy, key: value}))
    before = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    done = run(archive)
    assert done.code == 2
    assert done.err.startswith(f"error: --output: {told} is damaged: ")
    assert done.err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in first.folder.iterdir()} == before


def test_no_place_for_temporary_files_is_one_sentence(
    archive: Archive, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.fill(3)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    done = run(archive)
    assert done.code == 2
    assert done.err.startswith("error: cannot make a temporary folder: No such file or directory; TMPDIR ")
    assert done.err.count("\n") == 1
    assert not done.shards
    monkeypatch.undo()
    assert run(archive).code == 0


@pytest.mark.parametrize("undone", ["everything", "evening_out"])
def test_a_runner_that_ends_early_without_a_word_leaves_no_data_set(
    undone: str, archive: Archive, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def do_nothing(*_: object, **__: object) -> None:
        pass

    archive.fill(40)
    for i in range(6):
        archive.put(f"cut_{i}", planet(noise(1))[:300])
    if undone == "everything":
        monkeypatch.setattr(running, "run", do_nothing)
    else:
        monkeypatch.setattr(preprocess, "_rebuild", do_nothing)
    done = run(archive, "--num_shards=8", "--max_bad_fraction=0.2")
    assert (done.code, done.out) == (75, "")
    assert done.err == f"out of reach for now: {running.ENDED_EARLY}\n"
    assert not list(done.folder.glob("[!.]*"))


@pytest.mark.parametrize(
    ("times", "said"), [(2, "bytes and was written with"), (0, running.ENDED_EARLY)], ids=["longer", "gone"]
)
def test_a_shard_that_is_not_what_its_worker_said_of_it_is_not_taken_for_whole(
    times: int, said: str, archive: Archive, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = running.run

    def late(*arguments: Any, **named: Any) -> None:
        go(*arguments, **named)
        shard = next((archive.root.parent / "out").glob(".canopy-staging/*/shards/*.tfrecord-*"))
        data = shard.read_bytes() * times
        shard.unlink()
        if data:
            shard.write_bytes(data)

    monkeypatch.setattr(running, "run", late)
    done = run(archive.fill(5))
    assert (done.code, done.out) == (75, "")
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not list(done.folder.glob("[!.]*"))


def test_files_of_others_are_never_removed(archive: Archive, run: Run, tmp_path: Path) -> None:
    archive.fill(5)
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "labels.txt").write_text("precious")
    done = run(archive, "--overwrite", output=folder)
    assert done.code == 2
    assert "labels.txt" in done.err
    assert [path.read_text() for path in folder.iterdir()] == ["precious"]
