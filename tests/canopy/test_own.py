"""A folder that is this user's alone, or none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from canopy import own


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_it_is_the_same_each_time_and_closed_to_others(temporary: Path) -> None:
    found = own.folder()
    assert found == own.folder() == temporary / f"canopy-{os.getuid()}"
    assert found is not None
    assert found.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("trap", ["a link", "a file", "another's"])
def test_what_somebody_else_has_put_in_its_place_is_not_taken(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    place = temporary / f"canopy-{os.getuid()}"
    if trap == "a link":
        (temporary / "elsewhere").mkdir()
        place.symlink_to(temporary / "elsewhere")
    elif trap == "a file":
        place.touch()
    else:
        (temporary / f"canopy-{os.getuid() + 1}").mkdir()
        uid = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: uid)
    assert own.folder() is None
