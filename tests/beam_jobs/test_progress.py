"""Progress, from whichever runner."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from beam_jobs import runners
from canopy import progress
from tests.beam_jobs.making import Archive


def test_numbers_that_workers_leave_are_added_up_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(runners, "POLL_SECONDS", 0.02)
    with runners.followed(str(tmp_path), 100, "converting"):
        (tmp_path / "a").write_text("30")
        (tmp_path / "b").write_text("12")
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert "42 of 100 images" in lines[-1]
    assert "images/s" in lines[-1]
    assert "s left" in lines[-1]


def test_a_terminal_shows_a_bar(archive: Archive, tmp_path: Path) -> None:
    archive.fill(20)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "beam_jobs.preprocess", "--images", str(archive.folder),
            "--labels", str(archive.labels), "--output", str(tmp_path / "out"),
        ],
        stderr=theirs, stdout=subprocess.PIPE, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
    said, _ = process.communicate()
    os.close(ours)
    assert process.returncode == 0
    assert b"converting" in shown
    assert b"/20" in shown
    assert b"20 written" in said
    assert b"converting" not in said
