"""What cannot be read is refused with the command that unpacks it, wherever it lies."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from beam_jobs.listing import list_images
from canopy.cli import UserError
from tests.beam_jobs.making import pack


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("a.tar.lz", "tar --lzip -xf a.tar.lz` and name the folder"),
        ("a.tar.Z", "tar -xZf a.tar.Z"),
        ("two words.7z", "7z x 'two words.7z'` and name the folder"),
        ("a.7z", "7z x a.7z` and name the folder"),
        ("test-jpg.tar.7z", "7z x test-jpg.tar.7z` and name test-jpg.tar"),
        ("a.rar", "unrar x a.rar"),
        ("train-jpg.tar.7z.001", "7z x train-jpg.tar.7z.001` and name train-jpg.tar"),
        ("a.ZIP.001", "7z x a.ZIP.001` and name the folder"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_command_that_unpacks_it(
    tmp_path: Path, name: str, command: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b"?")
    said = f"--images: {path} cannot be read as it is; unpack it with `{command}"
    with pytest.raises(UserError, match=f"^{re.escape(said)}"):
        list_images([str(path)])


@pytest.mark.parametrize(
    "name",
    [
        "b.tar.gz", "B.TGZ", "b.tbz2", "b.txz", "b.tar.lz4", "b.tar.lzma", "b.tar.Z", "b.7z", "b.jpg.gz",
        "b.zip", "b.7z.001", "b.zip.001",
    ],
)  # fmt: skip
def test_what_lies_beside_images_and_may_hold_more_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"1")
    (tmp_path / name).write_bytes(b"?")
    with pytest.raises(UserError, match=name):
        list_images([str(tmp_path)])


@pytest.mark.parametrize("name", ["x/more.zip", "more.tar", "more.TAR.gz", "b.jpg.gz", "t.csv.7z"])
@pytest.mark.parametrize("outer", ["a.zip", "a.tar"])
def test_what_lies_within_an_archive_and_may_hold_more_is_refused(
    tmp_path: Path, name: str, outer: str
) -> None:
    pack(tmp_path / outer, {"a.jpg": b"1", name: b"?"})
    command = "unzip a.zip" if outer == "a.zip" else "tar -xf a.tar"
    with pytest.raises(UserError, match=f"{outer} holds {name}, which cannot be read as it is.*`{command}`"):
        list_images([str(tmp_path)])


@pytest.mark.parametrize("outer", ["a.zip", "a.tar"])
def test_what_lies_within_an_archive_and_holds_none_is_passed_over(tmp_path: Path, outer: str) -> None:
    others = ["labels.csv.gz", "train_v2.csv.zip", ".more.zip", "__MACOSX/._more.zip", "notes.txt"]
    pack(tmp_path / outer, {"a.jpg": b"1"} | dict.fromkeys(others, b"?"))
    listing = list_images([str(tmp_path)])
    assert [source.name for source in listing] == ["a"]
    assert listing.ignored == len(others)


@pytest.mark.skipif(not shutil.which("gunzip"), reason="gunzip is not there to be tried")
@pytest.mark.parametrize("name", ["two words.jpg.gz", "it's.jpg.gz", "$(touch gone).jpg.gz"])
def test_the_command_that_unpacks_a_file_works_as_it_is_printed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"1"))
    with pytest.raises(UserError) as refused:
        list_images([str(tmp_path / name)])
    _, command, _ = str(refused.value).split("`")
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert {path.name for path in tmp_path.iterdir()} == {name, name.removesuffix(".gz")}
