"""What a path for `--images` means, and what the system says of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from beam_jobs.finding import files
from canopy.cli import UserError

NOBODY = 65_534


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


def test_files_come_in_the_order_of_their_names_each_folder_in_its_place(tmp_path: Path) -> None:
    made = ["a.jpg", "b/c.txt", "b/d/e.jpg", "b/f.jpg", "g.zip"]
    for name in made[::-1]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(files(str(tmp_path))) == [f"{tmp_path}/{name}" for name in made]


def test_folders_may_be_nested_deeper_than_pythons_calls(tmp_path: Path) -> None:
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(tmp_path)
        for _ in range(sys.getrecursionlimit() + 200):
            os.mkdir("d")  # noqa: PTH102
            os.chdir("d")
        Path("a.jpg").write_bytes(b"x")
        assert [Path(path).name for path in files(str(tmp_path))] == ["a.jpg"]
        with pytest.raises(UserError, match="name the folder"):
            list(files(f"{tmp_path}/**"))
    finally:
        os.fchdir(before)
        os.close(before)
        subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # pytest's own cleaning up calls itself


def test_a_path_that_the_system_does_not_take_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    for name, said in (("x" * 5_000, "name too long"), ("circle.jpg", "Too many levels")):
        with pytest.raises(UserError, match=rf"cannot look for .*{said}"):
            list(files(str(tmp_path / name)))
    assert list(files(str(tmp_path / ("x*" * 200)))) == []


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
                    list(files(pattern))
            with pytest.raises(UserError, match=r"cannot list .*: access is denied"):
                list(files("."))
            assert list(files("*.jpg")) == ["link.jpg"]
    finally:
        (tmp_path / "locked").chmod(0o700)
