"""A staging folder on a disk that several nodes share: locks of nodes that are gone, what is seen late."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from beam_jobs import staging
from canopy.cli import UserError
from tests.beam_jobs.predicting import left_in


def of_run(folder: Path, run: str) -> staging.Staging:
    return staging.Staging(str(folder), "out", "job", run)


def test_a_pod_goes_on_where_an_earlier_one_of_its_run_still_holds_the_lock(tmp_path: Path) -> None:
    folder = tmp_path / "staging"
    lost = of_run(folder, "a Job")
    lost.begin()
    replacing = of_run(folder, "a Job")
    replacing.begin()
    replacing.check()
    with pytest.raises(UserError, match="another job to out began before this one was done"):
        lost.check()
    lost.leave()  # its node was not gone after all: the lock is the other's by now
    with pytest.raises(UserError, match="another job is writing to out"):
        of_run(folder, "another Job").begin()
    replacing.check()
    replacing.leave()
    assert left_in(tmp_path) == set()


@pytest.mark.parametrize(("first", "second"), [("a Job", "another Job"), ("a Job", ""), ("", "")])
def test_a_job_of_another_run_or_of_none_is_refused(first: str, second: str, tmp_path: Path) -> None:
    held = of_run(tmp_path, first)
    held.begin()
    with pytest.raises(UserError, match="another job is writing to out"):
        of_run(tmp_path, second).begin()
    held.check()


def test_the_lock_that_a_killed_job_left_says_nothing_of_the_next_one(tmp_path: Path) -> None:
    (tmp_path / staging.LOCK).write_text("a Job of a long name")
    held = of_run(tmp_path, "another Job")
    held.begin()
    with pytest.raises(UserError, match="another job is writing to out"):
        of_run(tmp_path, "a Job of a long name").begin()
    of_run(tmp_path, "another Job").begin()


@pytest.mark.parametrize("name", [".nfs000000000029e9ae00000001", ".fuse_hidden0000000200000001"])
def test_a_removed_file_that_a_process_still_has_open_is_in_nobodys_way(name: str, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    (there := tmp_path / "out.csv.partial" / name).parent.mkdir()
    there.write_bytes(b"")
    with staging.begun(staging.of_prediction(str(output))) as run:
        run.check()
        assert there.exists()  # NFS would refuse to remove it: busy
    assert left_in(tmp_path) == {"out.csv.partial"}


def test_a_mark_that_another_node_removed_is_missed_though_this_one_remembers_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = of_run(tmp_path, "")
    job.begin()
    Path(job.mark).unlink()
    look = os.lstat

    def remembered(path: Any, **named: Any) -> os.stat_result:
        return look(tmp_path if str(path) == job.mark else path, **named)

    monkeypatch.setattr(os, "lstat", remembered)
    with pytest.raises(UserError, match="another job to out began before this one was done"):
        job.check()
