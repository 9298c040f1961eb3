"""What a finished job says of itself, beyond what a whole job's tests look at."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_jobs import settings, summary
from beam_jobs.prepare import Prepared
from beam_jobs.runners.choosing import Choice
from beam_jobs.sources import Listing
from beam_jobs.work import Reject, Result
from tests.beam_jobs.making import Archive, Run, jpeg, noise, planet
from tests.conftest import ROOT, without_progress


def test_the_same_rejects_are_the_same_lines_in_whatever_order_they_come() -> None:
    rejects = [Reject("b", "empty", ""), Reject("a", "not_jpeg", ""), Reject("été", "no_label", "")]
    (lines,) = {summary.reject_lines(order) for order in itertools.permutations(rejects)}
    assert [line[:12] for line in lines.decode().splitlines()] == [
        '{"name": "a"',
        '{"name": "b"',
        '{"name": "ét',
    ]


RUN = summary.Run(id="", seconds=2.0, plan_seconds=1.0, choice=Choice("DirectRunner", "in_memory", 1, 1))


def results() -> list[Result]:
    """Those of three shards, five records in all."""
    told = [("train", 0, [10, 20], [1, 1]), ("train", 1, [30, 40], [2, 0]), ("validation", 0, [50], [0, 1])]
    return [
        Result(split, index, f"{split}-{index}", "", "", crc32c=f"{split}{index}", lengths=lengths, tags=tags)
        for split, index, lengths, tags in told
    ]


def document(
    shards: list[Result],
    *flags: str,
    run: summary.Run = RUN,
    found: int = 6,
    vocabulary: tuple[str, ...] = ("clear", "water"),
    rejects: Sequence[Reject] = (Reject("x", "empty", ""),),
) -> dict[str, Any]:
    """The content of canopy.json of a job, with one reject if nothing else is said."""
    given = settings.parse(("--images=in", "--labels=l.csv", "--output=out", *flags))[0]
    none = np.empty(0, np.int32)
    prepared = Prepared(found, 0, Listing(), vocabulary, [], none, {}, [], 6, 0)
    return summary.canopy_json(prepared, given, shards, rejects, run)


def test_the_same_shards_make_the_same_document_in_whatever_order_they_are_done() -> None:
    told = document(results())
    for order in itertools.permutations(results()):
        assert document(list(order)) == told
    train = told["splits"]["train"]
    assert (train["records"], train["bytes"], train["tags"]) == (4, 100, {"clear": 3, "water": 1})
    assert [shard["crc32c"] for shard in train["shards"]] == ["train0", "train1"]
    assert told["splits"]["validation"]["tags"] == {"clear": 0, "water": 1}
    assert told["run"]["images_per_second"] == 6 / 2.0


def test_the_same_rejects_are_counted_in_one_order_in_whatever_order_they_come() -> None:
    rejects = [Reject("x", "empty", ""), Reject("y", "bad_name", ""), Reject("z", "empty", "")]
    told = [document(results(), rejects=order, found=8) for order in itertools.permutations(rejects)]
    assert told[0]["rejects"] == {"bad_name": 1, "empty": 2}
    assert len(set(map(summary.as_json, told))) == 1


def test_the_files_beside_the_shards_hold_the_tags_in_order_and_the_format() -> None:
    told = document(results(), "--image_format=png", vocabulary=("water", "clear"))
    files = summary.files(told, [])
    assert files["labels.txt"] == files["image.class.label.labels.txt"] == b"water\nclear\n"
    features = json.loads(files["features.json"])["featuresDict"]["features"]
    assert features["image/encoded"]["image"]["encodingFormat"] == "png"
    assert b"\\udcff" in summary.as_json({"suspicious_names": ["no text: \udcff"]})


@pytest.mark.parametrize("found", [5, 7])
def test_an_image_too_many_or_too_few_is_a_bug(found: int) -> None:
    with pytest.raises(RuntimeError, match=f"{found} images found, but 5 written and 1 rejected"):
        document(results(), found=found)


def test_the_fingerprint_is_of_what_shapes_the_records_and_not_of_how_the_job_ran() -> None:
    other_run = replace(RUN, id="r", seconds=9.0, choice=Choice("FlinkRunner", "", 0, 4))
    other_shard = results()
    other_shard[0].crc32c = "another"
    seen = {
        document(results())["fingerprint"],
        document(other_shard)["fingerprint"],
        document(results(), "--seed=1")["fingerprint"],
        document(results(), "--jpeg_quality=90")["fingerprint"],
        document(results(), "--dataset=forest")["fingerprint"],
        document(results(), vocabulary=("clear", "lake"))["fingerprint"],
    }
    assert len(seen) == 6
    assert document(results(), run=other_run)["fingerprint"] == document(results())["fingerprint"]


@pytest.mark.parametrize(("shown", "said"), [(20, "tags       20: t0, "), (21, "tags       21: t0, ")])
def test_of_many_tags_the_screen_shows_twenty_and_the_last(shown: int, said: str) -> None:
    tags = tuple(f"t{i}" for i in range(shown))
    shards = [replace(result, tags=[0] * shown) for result in results()]
    (line,) = (line for line in summary.lines(document(shards, vocabulary=tags), "out") if "tags" in line)
    assert line.startswith(said)
    assert line.endswith("t18, t19" if shown == 20 else "t19, … t20")


def test_a_tag_of_two_words_is_seen_to_have_become_two() -> None:
    shards = [replace(result, tags=[0] * 3) for result in results()]
    told = summary.lines(document(shards, vocabulary=("Annual", "Crop", "Forest")), "out")
    assert "tags       3: Annual, Crop, Forest" in told


@pytest.mark.parametrize(("given", "told"), [("png", "png"), ("jpeg", "jpeg"), ("keep", "jpeg")])
def test_features_json_tells_how_pictures_are_held(given: str, told: str) -> None:
    features = summary.features_json(given, 4)["featuresDict"]["features"]
    assert features["image/encoded"]["image"]["encodingFormat"] == told
    assert features["image/class/multi_hot"]["tensor"]["shape"] == {"dimensions": ["4"]}


@pytest.mark.parametrize("below", ["", "made/planet"])
def test_what_a_job_wrote_beside_the_images_is_not_counted_among_the_files_it_passed_over(
    archive: Archive, run: Run, below: str
) -> None:
    output = archive.fill(6).folder / below
    (archive.folder / "notes.txt").write_text("mine")
    first = run(archive, output=output)
    again = run(archive, "--overwrite", output=output)
    assert again.code == 0, again.err
    assert first.canopy["images"]["files_ignored"] == again.canopy["images"]["files_ignored"] == 1


def test_the_summary_tells_of_names_without_an_image_beside_rows_and_of_small_splits_sizes(
    archive: Archive, run: Run
) -> None:
    archive.fill(3)
    archive.rows += [("gone", "clear"), ("gone", "clear"), archive.rows[0]]
    archive.write_labels()
    done = run(archive, "--splits", "train=1")
    assert "labels     6 rows, 1 name without an image\n" in done.out
    size = (done.folder / "planet-train.tfrecord-00000-of-00001").stat().st_size
    assert f"train      3 records in 1 shard, {size / 1000:.1f} kB\n" in done.out
    assert [summary._size(count) for count in (0, 99_999, 100_000)] == ["0.0 kB", "100.0 kB", "0.1 MB"]


def test_the_summary_tells_of_empty_splits_suspicious_images_and_files_passed_over(
    archive: Archive, run: Run
) -> None:
    archive.fill(3)
    archive.put("flat", jpeg(np.full((8, 8, 3), 77, np.uint8)), "clear")
    (archive.folder / "map.png").write_bytes(b"png")
    done = run(archive, "--splits", "train=0.999999,test=1e-6")
    assert "suspicious 1 image of one value throughout (written; see canopy.json)" in done.out
    assert "empty      test: no image fell to it" in done.out
    assert "ignored    1 file, hidden or no JPEG by its name" in done.out
    assert "empty" not in run(archive, "--splits", "train=1", "--overwrite").out


@pytest.mark.parametrize("mode", ["in_memory", "multi_processing"])
def test_corrupt_metadata_of_a_sound_picture_is_not_spoken_of(
    archive: Archive, tmp_path: Path, mode: str
) -> None:
    sound = jpeg(noise(1))
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0"
    archive.put("a", sound[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + sound[2:])
    words = [
        sys.executable, "-m", "beam_jobs.preprocess", "--images", str(archive.folder),
        "--labels", str(archive.labels), "--output", str(tmp_path / "out"), f"--direct_running_mode={mode}",
    ]  # fmt: skip
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert without_progress(done.stderr) == ""
    assert "1 written" in done.stdout


def test_names_and_tags_do_not_reach_the_terminal_as_commands(archive: Archive, run: Run) -> None:
    archive.put("good", planet(noise(1)), "clear \x1b[31mred")
    archive.put("evil\x1b[2J", b"")
    failed = run(archive)
    assert (failed.code, "\x1b" in failed.err) == (2, False)
    assert r"(the first: evil\x1b[2J, empty: the file is empty)" in failed.err
    assert failed.rejects[0]["name"] == "evil\x1b[2J"
    done = run(archive, "--max_bad_fraction", "0.5")
    assert (done.code, "\x1b" in done.out) == (0, False)
    assert r"3: \x1b[31mred, clear, primary" in done.out
    assert done.canopy["vocabulary"] == ["\x1b[31mred", "clear", "primary"]
