"""Fixtures: an archive in the making, and a job run in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from beam_jobs import preprocess
from tests.beam_jobs.making import Archive, Done, Run


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a job in this process: `run(archive, "--seed", "3", output=...)`."""

    def go(archive: Archive | None, *flags: str, output: Path | None = None) -> Done:
        folder = output or tmp_path / "out"
        inputs = [] if archive is None else ["--images", str(archive.folder), "--labels", str(archive.labels)]
        capsys.readouterr()
        code = preprocess.main([*inputs, "--output", str(folder), *flags])
        said = capsys.readouterr()
        return Done(code, folder, said.out, said.err)

    return go
