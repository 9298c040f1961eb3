"""The archive as a folder: its layout, its determinism, its odd files, and that it is whole or absent."""

import csv
import hashlib
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from canopy.cli import UserError
from canopy.machine import cores
from canopy.sample import SampleSettings, write_archive
from canopy.sample.__main__ import main
from canopy.sample.chip import draw_chip
from canopy.sample.encode import Kind, encode
from canopy.sample.folder import draft
from canopy.sample.tags import TAGS

SMALL = SampleSettings(seed=3, labelled=30, unlabelled=8, size=48, odd=1, workers=1)


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    output = tmp_path_factory.mktemp("sample") / "archive"
    return write_archive(output, SMALL)


def test_the_folder_has_kaggles_layout_and_nothing_else(made):
    assert {path.name for path in made.output.iterdir()} == {
        "train-jpg",
        "test-jpg",
        "train_v2.csv",
        "sample_submission_v2.csv",
        "README.txt",
        "sample.json",
    }
    assert {path.name for path in (made.output / "train-jpg").iterdir()} == {
        f"train_{i}.jpg" for i in range(30)
    }
    assert {path.name for path in (made.output / "test-jpg").iterdir()} == {f"test_{i}.jpg" for i in range(8)}


def test_the_labels_name_every_labelled_chip_in_order_with_known_tags(made):
    header, *body = rows(made.output / "train_v2.csv")
    assert header == ["image_name", "tags"]
    assert [name for name, _ in body] == [f"train_{i}" for i in range(30)]
    assert all(set(tags.split(" ")) <= set(TAGS) for _, tags in body)
    counts = {tag: sum(tag in tags.split() for _, tags in body) for tag in TAGS}
    assert counts == dict(made.tag_counts)


def test_the_sample_submission_answers_the_constant_for_every_unlabelled_chip(made):
    header, *body = rows(made.output / "sample_submission_v2.csv")
    assert header == ["image_name", "tags"]
    assert body == [[f"test_{i}", "primary clear agriculture road water"] for i in range(8)]


def test_the_readme_says_in_two_lines_that_the_pictures_are_drawn_and_from_which_seed(made):
    lines = (made.output / "README.txt").read_text().splitlines()
    assert len(lines) == 2
    assert "drawn" in lines[0]
    assert "seed 3" in lines[1]


def test_every_file_but_the_broken_ones_shows_the_picture_of_its_tags(made):
    for name, tags in rows(made.output / "train_v2.csv")[1:]:
        path = made.output / "train-jpg" / f"{name}.jpg"
        if name in made.broken:
            with pytest.raises(OSError), Image.open(path) as image:  # noqa: PT011
                image.convert("RGB")
            continue
        shown_tags = tuple(sorted({*tags.split(), *made.overlooked.get(name, ())}))
        drawn = draw_chip(shown_tags, (3, 0, int(name.removeprefix("train_"))), 48)
        expected = Image.fromarray(drawn)
        if made.odd.get(name) == "grey":
            expected = expected.convert("L")
        with Image.open(path) as image:
            shown = np.asarray(image.convert("RGB"), float)
        assert np.abs(shown - np.asarray(expected.convert("RGB"), float)).mean() < 8


def test_the_odd_and_the_broken_files_are_those_the_summary_names(made):
    assert sorted(made.broken.values()) == ["empty", "not a JPEG", "truncated"]
    assert sorted(set(made.odd.values())) == ["cmyk", "grey", "jfif", "progressive", "rgb"]
    assert not set(made.odd) & set(made.broken)
    assert all(name.startswith("train_") for name in made.broken)
    for path in made.output.rglob("*.jpg"):
        if path.stem in made.broken:
            continue
        with Image.open(path) as image:
            planet = image.mode == "CMYK" and "adobe" not in image.info
        assert planet == (path.stem not in made.odd)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_gives_others(made, tmp_path):
    again = write_archive(tmp_path / "again", SMALL)
    assert digest(again.output) == digest(made.output)
    other = write_archive(tmp_path / "other", replace(SMALL, seed=4))
    pictures = {file for file in digest(made.output) if file.endswith(".jpg")}
    pictures -= {f"train-jpg/{name}.jpg" for name in (*made.broken, *other.broken)}
    assert all(digest(other.output)[file] != digest(made.output)[file] for file in pictures)
    assert other.odd != made.odd


def test_the_bytes_do_not_depend_on_the_number_of_processes(tmp_path):
    settings = SampleSettings(labelled=96, unlabelled=8, size=32, workers=1)
    alone = write_archive(tmp_path / "one", settings)
    shared = write_archive(tmp_path / "two", replace(settings, workers=2))
    assert digest(alone.output) == digest(shared.output)


def test_a_second_run_reuses_the_archive_and_touches_nothing(made):
    before = {path: path.stat().st_mtime_ns for path in made.output.rglob("*")}
    again = write_archive(made.output, replace(SMALL, workers=2))
    assert again.reused
    assert not made.reused
    assert replace(again, reused=False) == made
    assert {path: path.stat().st_mtime_ns for path in made.output.rglob("*")} == before


def test_an_archive_of_other_settings_is_replaced_whole(tmp_path):
    output = tmp_path / "archive"
    write_archive(output, SMALL)
    write_archive(output, replace(SMALL, labelled=24))
    assert len(list((output / "train-jpg").iterdir())) == 24
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize("missing", ["train-jpg/train_5.jpg", "train_v2.csv", "sample.json", "test-jpg"])
def test_an_archive_that_lost_something_is_not_taken_for_whole(missing, tmp_path):
    output = tmp_path / "archive"
    write_archive(output, SMALL)
    whole = digest(output)
    if (output / missing).is_dir():
        shutil.rmtree(output / missing)
    else:
        (output / missing).unlink()
    if missing == "sample.json":  # then nothing says that the folder is ours to replace
        with pytest.raises(UserError, match="no sample archive"):
            write_archive(output, SMALL)
        return
    assert not write_archive(output, SMALL).reused
    assert digest(output) == whole


def test_a_folder_with_the_users_own_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"no sample archive"):
        write_archive(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_an_archive_to_which_the_user_added_a_picture_is_left_alone(tmp_path):
    output = tmp_path / "archive"
    write_archive(output, SMALL)
    (output / "train-jpg" / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"no sample archive"):
        write_archive(output, replace(SMALL, seed=4))
    assert (output / "train-jpg" / "mine.jpg").read_bytes() == b"mine"


def test_a_failure_half_way_leaves_neither_archive_nor_draft(tmp_path, monkeypatch):
    real = encode
    count = 0

    def fails_late(rgb, kind):
        nonlocal count
        count += 1
        if count > 10:
            raise OSError(28, "No space left on device")
        return real(rgb, kind)

    monkeypatch.setattr("canopy.sample.archive.encode", fails_late)
    with pytest.raises(UserError, match="No space left"):
        write_archive(tmp_path / "archive", SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_a_run_that_is_stopped_leaves_nothing_that_looks_whole(how, tmp_path):
    output = tmp_path / "archive"
    command = [sys.executable, "-m", "canopy.sample", "--output", str(output), "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".*/train-jpg/*.jpg")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(how)
        # Its drawing processes share the pipe: were one left over, this would wait in vain.
        process.communicate(timeout=30)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(how, -how)
    assert not output.exists()
    assert write_archive(output, SMALL).labelled == 30
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_a_draft_that_a_living_process_writes_is_left_alone(tmp_path):
    with draft(tmp_path / "archive") as folder:
        assert write_archive(tmp_path / "archive", SMALL).labelled == 30
        assert folder.is_dir()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seed", "-1"], "--seed -1"),
        (["--labelled", "5"], "--labelled 5"),
        (["--size", "8"], "--size 8"),
        (["--workers", "0"], "--workers 0"),
    ],
)
def test_a_senseless_flag_ends_in_one_sentence_and_code_2(flags, message, tmp_path, capsys):
    assert main(["--output", str(tmp_path / "archive"), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "archive").exists()


def test_an_output_that_cannot_be_written_ends_in_one_sentence_and_code_2(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "archive"):
        assert main(["--output", str(output), "--labelled", "20", "--size", "32"]) == 2
        assert "--output" in capsys.readouterr().err


def test_the_command_says_what_it_made_and_where(tmp_path, capsys):
    output = tmp_path / "archive"
    flags = ["--labelled", "24", "--unlabelled", "6", "--size", "32", "--odd", "1"]
    assert main(["--output", str(output), *flags]) == 0
    said = capsys.readouterr().out
    assert str(output) in said
    assert "24 labelled chips, 6 unlabelled" in said
    assert "truncated" in said
    assert main(["--output", str(output), *flags]) == 0
    assert "reused" in capsys.readouterr().out


def test_drawing_needs_neither_tensorflow_nor_beam():
    code = "import canopy.sample.__main__, sys; print({'tensorflow', 'apache_beam'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_file_sizes_are_those_of_the_original_chips():
    """The originals' middle half lies between 11 and 18 KB."""
    sizes = []
    for index in range(12):
        rgb = draw_chip(("clear", "primary"), (index,), 256)
        sizes.append(len(encode(rgb, Kind.PLANET)))
    assert 8_000 < np.median(sizes) < 24_000


def test_the_default_is_a_process_for_each_core():
    assert SampleSettings().workers == cores()
