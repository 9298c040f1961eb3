"""Fixtures: an archive in the making, a job run in this process, what it holds and shows, a bad store."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from beam_jobs import preprocess
from beam_jobs.runners import running
from beam_jobs.sources import Source
from beam_jobs.stores import gcs
from tests.beam_jobs.gcs_server import Faulty, serving
from tests.beam_jobs.making import Archive, Done, Run, Shown


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


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Shown]:
    """The last progress that each job's pipeline shows."""
    seen: list[Shown] = []
    followed = running.followed

    @contextmanager
    def noted(count: Callable[[], int | None], total: int, doing: str) -> Iterator[None]:
        with followed(count, total, doing):
            yield
        seen.append((doing, count(), total))

    monkeypatch.setattr(running, "followed", noted)
    return seen


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that the driver holds when its pipeline begins."""
    names: list[str] = []
    begin = running.run

    def noted(*arguments: Any, **named: Any) -> None:
        gc.unfreeze()  # else what is there when Beam is imported would not be shown
        gc.collect()  # what earlier tests have left
        sources = [each for each in gc.get_objects() if isinstance(each, Source)]
        names.extend(each.name for each in sources if each.path.startswith(str(tmp_path)))
        begin(*arguments, **named)

    monkeypatch.setattr(running, "run", noted)
    return names


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """A server of gs:// with the bucket `here`, kept in tmp_path / "store"."""
    with serving(tmp_path / "store", "here") as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        gcs._client.cache_clear()
        yield proxy
    gcs._client.cache_clear()
