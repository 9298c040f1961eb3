"""What the demo finds, prepares and checks in an archive of Kaggle's layout."""

import errno
import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from canopy.cli import UserError
from canopy.demo.layout import (
    check_submission,
    copy_images,
    images_in,
    open_archive,
    read_column,
    smallest_side,
)
from canopy.demo.table import Stage, print_summary

TAGS = ["clear", "primary", "water"]


def jpeg(width: int = 8, height: int = 8) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height)).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def archive(tmp_path):
    """An archive with the least that there has to be."""
    folder = tmp_path / "archive"
    (folder / "train-jpg").mkdir(parents=True)
    (folder / "train-jpg" / "train_0.jpg").write_bytes(jpeg())
    (folder / "train_v2.csv").write_text("image_name,tags\ntrain_0,clear\n")
    return folder


def test_an_archive_without_test_images_is_one_all_the_same(archive):
    found = open_archive(archive)
    assert found.images == archive / "train-jpg"
    assert found.labels == archive / "train_v2.csv"
    assert (found.test_images, found.sample) == (None, None)


def test_test_images_and_sample_are_found_where_there_are_any(archive):
    (archive / "test-jpg").mkdir()
    (archive / "sample_submission_v2.csv").write_text("image_name,tags\ntest_0,clear\n")
    assert open_archive(archive).test_images is None  # an empty folder is none to predict
    (archive / "test-jpg" / "test_0.jpg").write_bytes(jpeg())
    found = open_archive(archive)
    assert found.test_images == archive / "test-jpg"
    assert found.sample == archive / "sample_submission_v2.csv"


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere is no folder: DATA wants one that holds train-jpg/"):
        open_archive(tmp_path / "nowhere")


def test_a_folder_and_a_csv_that_the_system_does_not_show_are_named(tmp_path):
    with pytest.raises(UserError, match=r"aaa cannot be looked at \(File name too long\)"):
        open_archive(tmp_path / ("a" * 300))
    with pytest.raises(UserError, match=r" cannot be read \(Is a directory\)"):
        read_column(tmp_path, "tags")


def test_a_folder_without_images_is_named(archive):
    (archive / "train-jpg" / "train_0.jpg").unlink()
    (archive / "train-jpg").rmdir()
    with pytest.raises(UserError, match=r"archive holds no folder train-jpg$"):
        open_archive(archive)


@pytest.mark.parametrize("name", ["train-jpg.tar.7z", "train-jpg-32px.tar.gz", "train-jpg.zip"])
def test_images_that_are_still_packed_are_named_with_what_to_do(archive, name):
    (archive / "train-jpg").rename(archive / "elsewhere")
    (archive / name).write_bytes(b"packed")
    with pytest.raises(UserError) as caught:
        open_archive(archive)
    assert str(caught.value) == (
        f"{archive} holds no folder train-jpg; {name} has to be unpacked there first"
    )


@pytest.mark.parametrize("name", ["train_v2.csv", "sample_submission_v2.csv"])
def test_a_csv_that_is_still_packed_is_named_with_what_to_do(archive, name):
    (archive / name).unlink(missing_ok=True)
    (archive / f"{name}.zip").write_bytes(b"packed")
    with pytest.raises(UserError) as caught:
        open_archive(archive)
    assert str(caught.value) == f"{archive} holds no {name}; {name}.zip has to be unpacked there first"


def test_missing_labels_are_named(archive):
    (archive / "train_v2.csv").unlink()
    with pytest.raises(UserError, match=r"holds no train_v2\.csv"):
        open_archive(archive)


def test_the_smaller_side_is_that_of_the_first_image_that_opens_in_folders_below_too(archive, monkeypatch):
    images = archive / "train-jpg"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 32)
    (images / "large.jpg").write_bytes(jpeg(96, 64))  # twice as many are a bomb to Pillow
    (images / "train_0.jpg").write_bytes(b"broken")
    (images / "a_note.txt").write_text("no image")
    (images / "part" / "one").mkdir(parents=True)
    (images / "part" / "one" / "train_1.JPG").write_bytes(jpeg(48, 32))
    assert smallest_side(images) == 32


def test_images_of_which_none_opens_are_one_sentence(archive):
    (archive / "train-jpg" / "train_0.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="holds no image that can be opened"):
        smallest_side(archive / "train-jpg")


def test_images_are_files_whose_names_end_as_images_do_sorted_by_their_paths(tmp_path):
    for name in ("below/1.jpg", "below-too/2.jpg", "a.JPEG", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    found = [str(path.relative_to(tmp_path)) for path in images_in(tmp_path)]
    assert found == ["a.JPEG", "below-too/2.jpg", "below/1.jpg"]


@given(kept=st.sets(st.sampled_from(["a", "b.c", "d", "e", "gone"])))
def test_a_copy_holds_exactly_the_names_and_the_archive_stays_as_it_was(tmp_path_factory, kept):
    root = tmp_path_factory.mktemp("copy")
    source, target = root / "source", root / "target"
    (source / "below").mkdir(parents=True)
    files = ["a.jpg", "b.c.jpeg", "below/d.JPG", "e.jpg", "a.txt"]
    for name in files:
        (source / name).write_bytes(name.encode())
    target.mkdir()
    (target / "earlier.jpg").write_bytes(b"earlier")
    copy_images(kept, source, target)
    wanted = {"a": "a.jpg", "b.c": "b.c.jpeg", "d": "below/d.JPG", "e": "e.jpg"}
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        wanted[name].rpartition("/")[2]: wanted[name].encode() for name in kept - {"gone"}
    }
    assert sorted(str(path.relative_to(source)) for path in source.rglob("*.*")) == sorted(files)


def test_an_image_is_found_however_its_disk_spells_accents(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "cafe\u0301.jpg").touch()
    copy_images(["caf\u00e9"], tmp_path / "source", tmp_path / "target")
    assert len(list((tmp_path / "target").iterdir())) == 1


@pytest.mark.parametrize("links", [True, False])
def test_of_two_images_of_one_name_the_first_by_its_path_is_copied(tmp_path, monkeypatch, links):
    def refuse(*_):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    if not links:  # as from one disk to another
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    for folder in ("a", "b"):
        (tmp_path / "source" / folder).mkdir(parents=True)
        (tmp_path / "source" / folder / "one.jpg").write_bytes(folder.encode())
    copy_images(["one"], tmp_path / "source", tmp_path / "target")
    assert [path.read_bytes() for path in (tmp_path / "target").iterdir()] == [b"a"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name,tags\na,clear\n", "has no column image_name"),
        (b"name,tags\n", "has no column image_name"),
        (b"", "has no column image_name"),
        (b"image_name,tags\ncaf\xe9,clear\n", "is no CSV in UTF-8"),
        (b"image_name,tags\n" + b"a" * 200_000, "is no CSV in UTF-8"),  # more than a field may hold
        (None, "does not exist"),
    ],
)
def test_a_csv_that_cannot_be_read_is_one_sentence(tmp_path, content, said):
    path = tmp_path / "some.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_column(path, "image_name")


def submission(folder, *rows: str):
    path = folder / "submission.csv"
    path.write_text("\n".join(("image_name,tags", *rows)) + "\n", encoding="utf-8")
    return path


def test_a_submission_with_the_samples_names_and_known_tags_passes(tmp_path):
    path = submission(tmp_path, "b,clear", "a,water primary")
    assert check_submission(path, ["b", "a"], TAGS) == 2


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["a,clear"], "has 1 rows where 2 are wanted"),
        (["a,clear", "b,clear", "c,clear"], "has 3 rows where 2 are wanted"),
        (["b,clear", "a,clear"], "line 2: 'b' where 'a' is wanted"),
        (["a,clear", "c,clear"], "line 3: 'c' where 'b' is wanted"),
        (["a,clear", "b,"], "line 3: '' is not a list of known tags"),
        (["a, ", "b,clear"], "line 2: ' ' is not a list of known tags"),
        (["a,clear", "b,clear fog"], "line 3: 'clear fog' is not a list of known tags"),
        (["a,clear", "b"], "line 3: '' is not a list of known tags"),
    ],
)
def test_a_submissions_first_mistake_is_told_with_its_line(tmp_path, rows, said):
    with pytest.raises(UserError) as caught:
        check_submission(submission(tmp_path, *rows), ["a", "b"], TAGS)
    assert str(caught.value).endswith(said)
    assert "submission.csv" in str(caught.value)


def test_a_submission_without_tags_is_told(tmp_path):
    path = tmp_path / "submission.csv"
    path.write_text("image_name\na\n")
    with pytest.raises(UserError, match="has no column tags"):
        check_submission(path, ["a"], TAGS)


def test_the_table_shows_what_the_stages_wrote_and_every_path_whole(tmp_path, capsys):
    data = {
        "images": {"found": 1203, "rejected": 3},
        "rejects": {"empty": 1, "undecodable": 2},
        "splits": {"train": {"records": 960}, "validation": {"records": 240}},
    }
    report = {"split": "validation", "records": 240, "f2": 0.8712, "f2_at_0.2": 0.85, "f2_constant": 0.674}
    report["constant_tags"] = ["clear", "[/primary]"]  # no command to what draws the table
    long = tmp_path / ("[red]" + "long" * 40) / ":car:"
    stages = [Stage("sample", 1500, 10.0), Stage("train", 9600, 64.0)]
    print_summary(stages, data, report, {"model": long, "submission (300 rows)": tmp_path / "s.csv"})
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "images read 1,203" in lines
    assert "rejected 3 (1 empty, 2 undecodable)" in lines
    assert "records, train 960" in lines
    assert "train 9,600 64.0 150" in lines
    assert "all 74.0" in lines
    assert "the model, a threshold for each tag 0.8712" in lines
    assert "always clear [/primary] 0.6740" in lines
    assert f"model                  {long}" in out.splitlines()
