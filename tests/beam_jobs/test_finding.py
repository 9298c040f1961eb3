"""What a path for `--images` means, and what the system says of it."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from beam_jobs import storage
from beam_jobs.finding import files, is_passed_over
from beam_jobs.stores import gcs
from canopy.cli import UserError
from canopy.progress import Meter
from tests.beam_jobs.gcs_server import Faulty

NOBODY = 65_534
METER = Meter("listing", None)


@contextmanager
def not_as_root() -> Iterator[None]:
    """Root may look everywhere, another user may not."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def paths(pattern: str) -> list[str]:
    return [found.path for found in files(pattern, METER)]


def test_files_come_in_the_order_of_their_names_each_folder_in_its_place(tmp_path: Path) -> None:
    made = ["a.jpg", "b/c.txt", "b/d/e.jpg", "b/f.jpg", "g.zip"]
    for name in made[::-1]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert paths(str(tmp_path)) == [f"{tmp_path}/{name}" for name in made]


def test_what_a_glob_matches_comes_in_the_order_of_names_whatever_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).touch()
    found = sorted(map(str, tmp_path.iterdir()))
    monkeypatch.setattr(glob, "iglob", lambda *_, **__: iter(found[::-1]))
    assert paths(f"{tmp_path}/*") == found


def test_a_folder_that_a_glob_matches_has_the_path_that_its_name_alone_gives(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").touch()
    for pattern in ("i*", "i*/", "./i*", ".//i*//", "in"):
        assert paths(f"{tmp_path}/{pattern}") == [f"{tmp_path}/in/a.jpg"]
    assert [found.below for found in files(f"{tmp_path}//i*", METER)] == ["in/a.jpg"]


def test_a_link_to_a_folder_is_a_folder(tmp_path: Path) -> None:
    for name in ("in", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").touch()
    (tmp_path / "in" / "link").symlink_to("../elsewhere")
    assert paths(f"{tmp_path}/in") == [f"{tmp_path}/in/a.jpg", f"{tmp_path}/in/link/a.jpg"]


def test_below_a_file_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    assert paths(f"{tmp_path}/a.jpg/*") == []
    with pytest.raises(UserError, match=r"a\.jpg/b does not exist"):
        paths(f"{tmp_path}/a.jpg/b")


def test_folders_may_be_nested_deeper_than_pythons_calls(tmp_path: Path) -> None:
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(tmp_path)
        for _ in range(sys.getrecursionlimit() + 200):
            os.mkdir("d")  # noqa: PTH102
            os.chdir("d")
        Path("a.jpg").write_bytes(b"x")
        assert [Path(path).name for path in paths(str(tmp_path))] == ["a.jpg"]
        with pytest.raises(UserError, match="name the folder"):
            paths(f"{tmp_path}/**")
    finally:
        os.fchdir(before)
        os.close(before)
        subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # pytest's own cleaning up calls itself


def test_a_path_that_the_system_does_not_take_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    for name, said in (("x" * 5_000, "name too long"), ("circle.jpg", "Too many levels")):
        with pytest.raises(UserError, match=rf"cannot look for .*{said}"):
            paths(str(tmp_path / name))
    assert paths(str(tmp_path / ("x*" * 200))) == []


def test_a_folder_that_may_not_be_looked_into_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locked" / "in").mkdir(parents=True)
    (tmp_path / "link.jpg").symlink_to("locked/in")
    (tmp_path / "locked").chmod(0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    try:
        with not_as_root():
            for pattern in ("locked/in", "locked/*.jpg"):
                with pytest.raises(UserError, match=r"cannot look for .*: access is denied"):
                    paths(pattern)
            with pytest.raises(UserError, match=r"cannot list .*: access is denied"):
                paths(".")
            assert paths("*.jpg") == ["link.jpg"]
    finally:
        (tmp_path / "locked").chmod(0o700)


@pytest.mark.parametrize(
    "below",
    [
        ".a.jpg",
        ".git/a.jpg",
        "/x/.cache/y/a.jpg",
        "t\\.x\\a.jpg",
        "__MACOSX/a.jpg",
        "..a/b",
        "._a.jpg",
        "/t/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
        "lost+found",
        "#recycle/a.jpg",
        "t\\@Recycle\\a.jpg",
        "$RECYCLE.BIN/a.jpg",
        "#snapshot/2026/a.jpg",
        "~snapshot/a.jpg",
    ],
)
def test_what_is_hidden_or_a_systems_own_is_passed_over(below: str) -> None:
    assert is_passed_over(below)


@pytest.mark.parametrize(
    "below", ["", "a.jpg", "./t/a.jpg", "../a.jpg", "/t.x/a.b.jpg", "__MACOSX.jpg", "@eaDir2/a.jpg"]
)
def test_dots_that_hide_nothing_do_no_harm(below: str) -> None:
    assert not is_passed_over(below)


@pytest.mark.parametrize("place", ["disk", "store"])
def test_with_each_file_comes_what_of_its_path_nobody_named(
    place: str, tmp_path: Path, server: Faulty
) -> None:
    root = str(tmp_path / "disk") if place == "disk" else "gs://here"
    for name in (".x/a.jpg", ".x/.b.jpg", "y/.z/c.jpg", "y/d.jpg"):
        storage.make_folder(storage.split(f"{root}/{name}")[0])
        storage.write_bytes(f"{root}/{name}", b"x")
    for pattern, wanted in {
        ".x/a.jpg": [""],
        ".x": ["/.b.jpg", "/a.jpg"],
        ".x/a*.jpg": ["a.jpg"],
        ".x/.*.jpg": [".b.jpg"],
        ".*/a.jpg": ["a.jpg"],
        "*/d.jpg": ["y/d.jpg"],
    }.items():
        assert [found.below for found in files(f"{root}/{pattern}", METER)] == wanted


def test_a_hidden_folder_is_not_looked_into(tmp_path: Path) -> None:
    (tmp_path / ".snapshots" / "old").mkdir(parents=True)
    (tmp_path / ".snapshots" / "old" / "a.jpg").touch()
    (tmp_path / "a.jpg").touch()
    assert paths(str(tmp_path)) == [f"{tmp_path}/.snapshots", f"{tmp_path}/a.jpg"]


def test_in_a_store_a_name_is_taken_as_it_is_before_it_is_taken_for_a_glob(server: Faulty) -> None:
    for name in ("set[1]/a.jpg", "set1/b.jpg", "x[1].jpg", "x1.jpg", "y1.jpg"):
        storage.write_bytes(f"gs://here/{name}", b"x")
    assert paths("gs://here/set[1]") == ["gs://here/set[1]/a.jpg"]
    assert paths("gs://here/set[1]/") == ["gs://here/set[1]/a.jpg"]
    assert paths("gs://here/x[1].jpg") == ["gs://here/x[1].jpg"]
    assert paths("gs://here/y[1].jpg") == ["gs://here/y1.jpg"]


def test_a_folder_in_a_store_is_listed_once(server: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train/a.jpg", "train-old/b.jpg"):
        storage.write_bytes(f"gs://here/{name}", b"x")
    listed: list[str] = []
    match = gcs.match

    def counted(pattern: str) -> Iterator[str]:
        listed.append(pattern)
        return match(pattern)

    monkeypatch.setattr(gcs, "match", counted)
    assert paths("gs://here/train") == ["gs://here/train/a.jpg"]
    assert listed == ["gs://here/train/**"]
