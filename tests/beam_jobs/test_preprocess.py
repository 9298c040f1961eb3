"""The whole job, from flags to a committed folder."""

from __future__ import annotations

import functools
import io
import os
import subprocess
import sys
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from PIL import Image

from beam_jobs.images import to_rgb
from canopy import cli
from tests.beam_jobs.making import TAGS, Archive, Run, jpeg, names_of_any_bytes, noise, pillow, planet
from tests.conftest import without_progress


def test_writes_every_file_of_the_contract(archive: Archive, run: Run) -> None:
    done = run(archive.fill(40), "--num_shards", "3")
    assert done.code == 0
    assert {path.name for path in done.folder.iterdir()} == {
        "planet-train.tfrecord-00000-of-00003", "planet-train.tfrecord-00001-of-00003",
        "planet-train.tfrecord-00002-of-00003", "planet-validation.tfrecord-00000-of-00001",
        "labels.txt", "features.json", "canopy.json", "rejects.jsonl", "dataset_info.json",
        "image.class.label.labels.txt",
    }  # fmt: skip
    assert (done.folder / "labels.txt").read_text().split() == list(TAGS)


def test_a_record_holds_what_the_contract_says(archive: Archive, run: Run) -> None:
    pixels = noise(1, 40, 56)
    archive.put("odd name (1)", planet(pixels), "water clear")
    archive.put("second", planet(noise(2)), "agriculture primary")
    done = run(archive, "--splits", "train=1", "--image_format", "png")
    row = next(row for row in done.examples if row["image/filename"] == [b"odd name (1)"])
    assert row["image/format"] == [b"png"]
    assert row["image/height"] == [40]
    assert row["image/width"] == [56]
    assert row["image/class/label"] == [1, 3]
    assert row["image/class/multi_hot"] == [0, 1, 0, 1]
    stored = np.asarray(Image.open(io.BytesIO(row["image/encoded"][0])))
    assert np.array_equal(stored, to_rgb(planet(pixels)))


def test_large_scenes_are_stored_no_larger_than_asked_for(archive: Archive, run: Run) -> None:
    archive.put("scene", planet(noise(1, 160, 240)), "water")
    archive.put("chip", planet(noise(2, 40, 30)), "clear")
    done = run(archive, "--splits", "train=1", "--max_side", "48")
    stored = {row["image/filename"][0]: row for row in done.examples}
    for name, sides in ((b"scene", (32, 48)), (b"chip", (40, 30))):
        assert (stored[name]["image/height"], stored[name]["image/width"]) == ([sides[0]], [sides[1]])
        with Image.open(io.BytesIO(stored[name]["image/encoded"][0])) as picture:
            assert picture.size == sides[::-1]
    assert done.canopy["encoding"]["max_side"] == 48


def test_canopy_json_adds_up(archive: Archive, run: Run) -> None:
    archive.fill(30)
    archive.put("flat", jpeg(np.full((8, 8, 3), 77, np.uint8)), "clear")
    archive.rows.append(("never_seen", "clear"))
    archive.write_labels()
    done = run(archive)
    told = done.canopy
    assert told["format_version"] == 1
    assert told["dataset"] == "planet"
    assert told["seed"] == 0
    assert told["vocabulary"] == list(TAGS)
    assert len(told["fingerprint"]) == 64
    assert told["images"]["found"] == told["images"]["written"] == 31
    assert told["images"]["suspicious_names"] == ["flat"]
    assert told["labels"] == {"rows": 32, "without_image": 1}
    assert told["run"]["seconds"] > 0
    for name, split in told["splits"].items():
        rows = [row for row in done.examples if f"-{name}." in row["shard"]]
        assert split["records"] == len(rows) == sum(shard["records"] for shard in split["shards"])
        for i, tag in enumerate(TAGS):
            assert split["tags"][tag] == sum(row["image/class/multi_hot"][i] for row in rows)
        for shard in split["shards"]:
            data = (done.folder / shard["name"]).read_bytes()
            assert shard["bytes"] == len(data)
            assert shard["crc32c"] == f"{google_crc32c.value(data):08x}"


def test_channel_statistics_are_those_of_the_train_splits_pixels(archive: Archive, run: Run) -> None:
    done = run(archive.fill(30), "--image_format", "keep")
    train = [row["image/encoded"][0] for row in done.examples if "-train." in row["shard"]]
    pixels = np.concatenate([to_rgb(data).reshape(-1, 3) for data in train]).astype(np.float64)
    assert done.canopy["channels"]["images"] == len(train)
    assert np.allclose(done.canopy["channels"]["mean"], pixels.mean(0), atol=1e-4)
    assert np.allclose(done.canopy["channels"]["std"], pixels.std(0), atol=1e-4)


def test_the_summary_says_what_was_made_and_where(archive: Archive, run: Run) -> None:
    archive.fill(120)
    archive.put("broken", b"\xff\xd8\xff\xe0", "clear")
    done = run(archive)
    assert "121 found, 120 written, 1 rejected (1 undecodable)" in done.out
    assert "images/s" in done.out
    assert str(done.folder) in done.out


def test_what_cannot_be_used_is_set_down_with_its_reason(archive: Archive, run: Run) -> None:
    archive.fill(20)
    good = planet(noise(5))
    archive.put("empty", b"")
    archive.put("text", b"hello, world")
    archive.put("cut", good[: len(good) // 2])
    archive.put("unlabelled", good, None)
    archive.put("tagless", good, "")
    archive.put("large", jpeg(noise(1, 200, 200)))
    archive.put("train_3", good, None, folder="train-jpg/second")
    vocabulary = archive.root / "tags.txt"
    archive.put("strange", good, "clear volcano")
    vocabulary.write_text("\n".join(TAGS))
    done = run(
        archive, "--vocabulary", str(vocabulary), "--max_pixels", "30000", "--max_bad_fraction", "0.5"
    )  # fmt: skip
    assert {row["name"]: row["reason"] for row in done.rejects} == {
        "empty": "empty", "text": "not_jpeg", "cut": "undecodable", "unlabelled": "no_label",
        "tagless": "no_tags", "large": "too_large", "train_3": "duplicate_name", "strange": "unknown_tag",
    }  # fmt: skip
    details = {row["name"]: row["detail"] for row in done.rejects}
    assert "truncated" in details["cut"]
    assert "volcano" in details["strange"]
    assert "200 x 200" in details["large"]
    told = done.canopy
    assert told["images"]["found"] == 28 == told["images"]["written"] + sum(told["rejects"].values())


def test_an_accent_may_be_spelled_in_one_way_by_the_disk_and_in_another_by_the_labels(
    archive: Archive, run: Run
) -> None:
    archive.put("cafe\u0301", planet(noise(1)), "clear")  # as macOS unpacks it
    archive.put("nin\u0303o", planet(noise(2)), "water")
    archive.rows[:] = [("caf\u00e9", "clear"), ("nin\u0303o", "water")]
    archive.write_labels()
    done = run(archive, "--splits", "train=1")
    assert (done.code, done.rejects) == (0, [])
    assert sorted(done.names) == ["caf\u00e9", "ni\u00f1o"]


def test_of_equal_names_the_first_in_the_order_of_the_paths_is_kept(archive: Archive, run: Run) -> None:
    archive.put("same", planet(noise(1)), folder="train-jpg/b")
    archive.put("same", planet(noise(2)), None, folder="train-jpg/a")
    done = run(archive, "--splits", "train=1", "--max_bad_fraction", "1", "--image_format", "png")
    stored = pillow(planet(noise(2)))
    assert stored is not None
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(done.examples[0]["image/encoded"][0]))), stored)
    assert [row["reason"] for row in done.rejects] == ["duplicate_name"]


@pytest.mark.parametrize("seed", [0, 1], ids=["the_taker_first", "the_giver_first"])
def test_shards_are_equal_within_one_record_even_with_rejects(archive: Archive, run: Run, seed: int) -> None:
    archive.fill(60)
    for i in range(0, 40, 2):
        archive.put(f"train_{i}", b"\xff\xd8\xff\xe0 cut", None)
    archive.rows = list(dict(archive.rows).items())
    archive.write_labels()
    flags = ["--num_shards", "7", "--max_bad_fraction", "0.5", "--splits", "train=1"]
    done = run(archive, *flags, "--seed", str(seed))
    assert done.code == 0, done.err
    sizes = [shard["records"] for shard in done.canopy["splits"]["train"]["shards"]]
    assert sum(sizes) == 40 == len(set(done.names))
    assert max(sizes) - min(sizes) <= 1
    for shard in done.canopy["splits"]["train"]["shards"]:
        data = (done.folder / shard["name"]).read_bytes()
        assert shard["crc32c"] == f"{google_crc32c.value(data):08x}"


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_a_run_that_is_done_has_no_more_to_do_when_it_is_started_again(
    archive: Archive, run: Run, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    archive.fill(6)
    monkeypatch.setenv("CANOPY_RUN_ID", "a Job")
    first = run(archive)
    made = {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    again = run(archive, *flags)
    assert (again.code, again.out) == (cli.EXIT_OK, first.out)
    assert "is whole already" in again.err
    assert {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()} == made
    monkeypatch.setenv("CANOPY_RUN_ID", "another Job")
    assert run(archive).code == cli.EXIT_USER
    assert run(archive, "--overwrite").code == cli.EXIT_OK


@names_of_any_bytes
@pytest.mark.parametrize("mode", ["in_memory", "multi_processing"])
def test_a_folder_whose_name_is_no_text_is_written_as_any_other(
    archive: Archive, run: Run, tmp_path: Path, mode: str
) -> None:
    archive.fill(12)
    archive.put("cut", planet(noise(1))[:300])
    flags = ["--num_shards", "5", "--max_bad_fraction", "0.5"]
    wanted = run(archive, *flags, output=tmp_path / "text")
    output = Path(os.fsdecode(os.fsencode(tmp_path) + b"/o\xffut"))
    done = run(archive, *flags, "--direct_running_mode", mode, output=output)
    assert done.code == 0, done.err
    assert done.shards == wanted.shards
    assert done.rejects == wanted.rejects


def test_the_same_inputs_give_the_same_bytes_whatever_the_threads(
    archive: Archive, run: Run, tmp_path: Path
) -> None:
    archive.fill(80)
    one = run(archive, "--direct_num_workers", "1", output=tmp_path / "one")
    four = run(archive, "--direct_num_workers", "4", output=tmp_path / "four")
    assert one.shards == four.shards
    assert one.canopy["fingerprint"] == four.canopy["fingerprint"]
    other = run(archive, "--seed", "1", output=tmp_path / "other")
    assert one.shards != other.shards
    assert sorted(one.names) == sorted(other.names)


def test_while_images_are_converted_the_driver_holds_none_of_them(
    archive: Archive, run: Run, held: list[str]
) -> None:
    for i in range(20):
        archive.put(f"held_{i}", planet(noise(i)), TAGS[0])
    assert run(archive, "--splits", "train=1").code == 0
    assert not [name for name in held if name.startswith("held_")]


def test_one_other_picture_tag_or_split_makes_another_fingerprint(
    archive: Archive, run: Run, tmp_path: Path
) -> None:
    archive.fill(6)
    seen = [run(archive, output=tmp_path / "as it is").canopy["fingerprint"]]
    archive.put("train_2", planet(noise(99)), None)
    seen.append(run(archive, output=tmp_path / "picture").canopy["fingerprint"])
    archive.rows[2] = ("train_2", "agriculture clear primary water")
    archive.write_labels()
    seen.append(run(archive, output=tmp_path / "tag").canopy["fingerprint"])
    seen.append(
        run(archive, "--splits", "train=0.5,test=0.5", output=tmp_path / "split").canopy["fingerprint"]
    )
    seen.append(run(archive, "--dataset", "forest", output=tmp_path / "name").canopy["fingerprint"])
    assert len(set(seen)) == 5


def test_adding_images_moves_no_other_to_another_split(archive: Archive, run: Run, tmp_path: Path) -> None:
    def members(done_names: list[dict[str, object]]) -> dict[object, bool]:
        return {str(row["image/filename"]): "-train." in str(row["shard"]) for row in done_names}

    before = members(run(archive.fill(40), output=tmp_path / "a").examples)
    for i in range(40):
        archive.put(f"new_{i}", planet(noise(i)))
        archive.put(f"unlabelled_{i}", planet(noise(i)), None)
    after = members(run(archive, "--max_bad_fraction", "0.4", output=tmp_path / "b").examples)
    assert len(after) == 80
    assert before == {name: after[name] for name in before}


def test_tensorflow_datasets_loads_the_folder(archive: Archive, run: Run) -> None:
    import tensorflow_datasets as tfds

    done = run(archive.fill(40), "--num_shards", "3", "--image_format", "keep")
    builder = tfds.builder_from_directory(str(done.folder))
    features = builder.info.features
    assert features["image/class/label"].feature.names == list(TAGS)
    assert features["image/encoded"].shape == (None, None, 3)
    train = done.canopy["splits"]["train"]["records"]
    assert builder.info.splits["train"].num_examples == train
    half = list(builder.as_dataset(split="train[:50%]").as_numpy_iterator())
    assert len(half) == round(train / 2)
    expected = {row["image/filename"][0]: row for row in done.examples}
    for row in half:
        mine = expected[row["image/filename"]]
        assert row["image/class/multi_hot"].tolist() == mine["image/class/multi_hot"]
        assert row["image/class/label"].tolist() == mine["image/class/label"]
        assert (
            np.abs(row["image/encoded"].astype(int) - to_rgb(mine["image/encoded"][0])).max() <= 8
        )  # TFDS takes the fast DCT


def test_tensorflow_datasets_shuffles_shares_and_pairs_the_records(archive: Archive, run: Run) -> None:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    done = run(archive.fill(20), "--num_shards", "2", "--splits", "train=1")
    train = functools.partial(tfds.builder_from_directory(str(done.folder)).as_dataset, split="train")

    def names(**how: object) -> list[str]:
        return [row["image/filename"].decode() for row in train(**how).as_numpy_iterator()]

    assert sorted(names(shuffle_files=True)) == sorted(done.names)
    inputs = [tf.distribute.InputContext(2, worker, 2) for worker in range(2)]
    mine, others = (names(read_config=tfds.ReadConfig(input_context=one)) for one in inputs)
    assert len(mine) == len(others) == 10
    assert sorted(mine + others) == sorted(done.names)
    pairs = list(train(as_supervised=True).as_numpy_iterator())
    assert {picture.shape[2] for picture, _ in pairs} == {3}
    expected = sorted(row["image/class/multi_hot"] for row in done.examples)
    assert sorted(answer.tolist() for _, answer in pairs) == expected


def test_the_command_line_works_as_a_program(archive: Archive, tmp_path: Path) -> None:
    archive.fill(10)
    command = [
        sys.executable, "-m", "beam_jobs.preprocess", "--images", str(archive.folder),
        "--labels", str(archive.labels), "--output", str(tmp_path / "out"),
    ]  # fmt: skip
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    assert without_progress(first.stderr) == ""
    assert "10 found, 10 written" in first.stdout
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert second.stderr.startswith("error: ")
