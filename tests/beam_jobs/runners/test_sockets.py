"""Beam's servers on this machine are reached by its own processes, and by nobody else."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from beam_jobs.runners import running, sockets
from tests.beam_jobs.making import Archive, Run

LISTENS = "0A"  # the state of a TCP socket in /proc/net/tcp


def ports() -> set[str]:
    """The TCP addresses at which this process listens."""
    held = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            held.add(str(entry.readlink()))
    tables = "".join(Path("/proc/net", name).read_text() for name in ("tcp", "tcp6"))
    lines = [line.split() for line in tables.splitlines()]
    return {line[1] for line in lines if line[3] == LISTENS and f"socket:[{line[9]}]" in held}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux lists a process' sockets")
@pytest.mark.parametrize(
    "flags",
    [
        ("--direct_running_mode", "in_memory", "--direct_num_workers", "2"),
        ("--direct_running_mode", "multi_threading", "--direct_num_workers", "2"),
        ("--direct_running_mode", "multi_processing", "--direct_num_workers", "2"),
        ("--runner", "PortableRunner", "--job_endpoint", "embed", "--environment_type", "LOOPBACK"),
    ],
    ids=["in_memory", "multi_threading", "multi_processing", "embed"],
)
def test_while_a_job_runs_nobody_else_reaches_a_server_of_its(
    archive: Archive, run: Run, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    before, seen, modes = ports(), set[str](), set[int]()

    def count(_: object) -> int:
        seen.update(ports())
        if folder := os.environ.get(sockets.FOLDER):
            modes.add(stat.S_IMODE(Path(folder).stat().st_mode))
        return 0

    monkeypatch.setattr(running, "noted", count)
    monkeypatch.setattr(running, "_counted", count)
    monkeypatch.setattr(running, "POLL_SECONDS", 0.01)
    done = run(archive.fill(3), *flags)
    assert done.code == 0, done.err
    assert seen <= before
    assert modes == {0o700}
    assert sockets.FOLDER not in os.environ


def test_a_temporary_folder_whose_path_is_long_is_no_hindrance(
    archive: Archive, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("deep" * 30)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    done = run(archive.fill(3), "--direct_running_mode", "multi_processing", "--direct_num_workers", "2")
    assert done.code == 0, done.err
    assert list(deep.iterdir()) == []


def test_the_sockets_lie_where_the_user_has_temporary_files_unless_the_path_is_long_and_go_with_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import grpc

    before = grpc.server, grpc.insecure_channel
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for longest, place in ((len(str(tmp_path)), tmp_path), (len(str(tmp_path)) - 1, Path("/tmp"))):
        monkeypatch.setattr(sockets, "LONGEST", longest)
        with sockets.private():
            folder = Path(os.environ[sockets.FOLDER])
            assert folder.parent == place
            assert folder.is_dir()
        assert not folder.exists()
        assert (grpc.server, grpc.insecure_channel) == before
