"""Two predictions to one output: never a mixture, and nothing left of either."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from beam_jobs import staging, storage
from beam_jobs.scoring.scorer import Scorer
from beam_jobs.scoring.worklist import Scored
from canopy.cli import UserError
from tests.beam_jobs.gcs_server import Faulty
from tests.beam_jobs.predicting import Run, left_in
from tests.beam_jobs.predicting import chips as chips
from tests.beam_jobs.predicting import model as model
from tests.beam_jobs.predicting import run as run
from tests.conftest import ROOT


@contextlib.contextmanager
def halted(words: list[str], began: Callable[[], bool]) -> Iterator[subprocess.Popen[str]]:
    """A prediction in a process of its own, stopped as soon as its staging folder is there."""
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while not began():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def command(model: Path, images: Path, output: Path | str) -> list[str]:
    # TensorFlow takes seconds to load: time to stop it before it is done.
    flags = ("--model", model, "--images", images, "--output", output, "--engine", "savedmodel")
    return [sys.executable, "-m", "beam_jobs.predict", *map(str, flags)]


def test_a_second_run_to_an_output_is_refused_and_the_first_is_whole(
    run: Run, model: Path, chips: Path, tmp_path: Path
) -> None:
    wanted = run("--images", chips, output=tmp_path / "reference.csv").rows
    output = tmp_path / "out" / "submission.csv"
    words = command(model, chips, output)
    with halted(words, lambda: any(output.parent.glob("*.partial/run-*"))) as first:
        second = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert second.returncode == 2
        assert second.stderr == f"error: --output: another run is writing to {output}\n"
        assert not output.exists()
        first.send_signal(signal.SIGCONT)
        _, said = first.communicate(timeout=120)
        assert first.returncode == 0, said
    assert left_in(output.parent) == {"submission.csv"}
    assert run("--images", chips, output=output).rows == wanted
    assert left_in(output.parent) == {"submission.csv"}


def test_a_killed_run_does_not_keep_the_next_one_out(
    run: Run, model: Path, chips: Path, tmp_path: Path
) -> None:
    wanted = run("--images", chips, output=tmp_path / "reference.csv")
    output = tmp_path / "out" / "submission.csv"
    with halted(command(model, chips, output), lambda: any(output.parent.glob("*.partial/run-*"))):
        pass
    assert left_in(output.parent) == {"submission.csv.partial"}
    done = run("--images", chips, output=output)
    assert done.code == 0, done.err
    assert output.read_bytes() == wanted.output.read_bytes()
    assert left_in(output.parent) == {"submission.csv"}


def test_in_a_store_the_later_run_is_whole_and_the_earlier_one_ends(
    run: Run, model: Path, chips: Path, tmp_path: Path, server: Faulty
) -> None:
    others = tmp_path / "others"
    others.mkdir()
    for path in chips.iterdir():
        (others / f"other_{path.name}").write_bytes(path.read_bytes())
    output = "gs://here/out/submission.csv"
    began = lambda: any((tmp_path / "store" / "here").rglob("submission.csv.partial/run-*"))  # noqa: E731
    with halted(command(model, others, output), began) as earlier:
        later = run("--images", chips, output=output)
        assert later.code == 0, later.err
        written = storage.read_bytes(output)
        earlier.send_signal(signal.SIGCONT)
        _, said = earlier.communicate(timeout=120)
        assert earlier.returncode == 2
        assert said.splitlines()[-1].startswith(f"error: --output: another run to {output} began before")
    assert storage.read_bytes(output) == written
    assert b"chip_0" in written
    assert b"other" not in written
    assert storage.match("gs://here/out/**") == [output]


def test_of_two_that_write_at_the_same_time_to_a_store_the_earlier_tells(server: Faulty) -> None:
    output = "gs://here/out.csv"
    with staging.begun(staging.of_prediction(output)) as first:
        storage.write_bytes(f"{first.own}/scores-00000.npz", b"first")
        first.check()
        with staging.begun(staging.of_prediction(output)) as second:
            second.check()
            assert second.own != first.own
            assert storage.match("gs://here/**") == [second.mark]
            storage.write_bytes(f"{first.own}/scores-00001.npz", b"a worker that knows of nothing")
        with pytest.raises(UserError, match="another run"):
            first.check()
    assert storage.match("gs://here/**") == []


def test_of_two_that_begin_at_the_same_moment_one_is_told(
    server: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (staging.Staging("gs://here/out.partial", "gs://here/out", "run") for _ in range(2))
    others, below = [second], storage.below

    def meanwhile(folder: str) -> list[str]:
        found = below(folder)
        while others:
            others.pop().begin()
        return found

    monkeypatch.setattr(storage, "below", meanwhile)
    first.begin()
    second.check()
    with pytest.raises(UserError, match="another run"):
        first.check()


def test_a_folder_that_fills_while_it_is_removed_keeps_no_job_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def filled(*_: object, **__: object) -> None:
        raise OSError(errno.ENOTEMPTY, "a worker that knows of nothing")

    (tmp_path / "job-1").mkdir()
    monkeypatch.setattr(os, "rmdir", filled)
    job = staging.Staging(str(tmp_path), "out", "job")
    job.begin()
    job.check()


def test_what_earlier_jobs_left_goes_but_for_what_is_kept_and_what_a_link_leads_to(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "staging", tmp_path / "elsewhere"
    for path in (folder / "job-1" / "part", folder / "run-1", folder / "plan.json", elsewhere / "theirs"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("left")
    (folder / "link").symlink_to(elsewhere)
    job = staging.Staging(str(folder), "out", "job")
    job.begin(keep=["plan.json"])
    job.check()
    assert left_in(folder) == {"lock", "plan.json", Path(job.mark).name}
    assert left_in(elsewhere) == {"theirs"}
    with pytest.raises(UserError, match="another job is writing to out"):
        staging.Staging(str(folder), "out", "job").begin()
    job.leave()
    assert left_in(folder) == {"plan.json"}
    again = staging.Staging(str(folder), "out", "job")
    again.begin()
    again.leave()
    assert left_in(tmp_path) == {"elsewhere"}


def test_in_a_store_too_what_is_kept_stays(server: Faulty) -> None:
    for name in ("job-1/part", "run-1", "plan.json"):
        storage.write_bytes(f"gs://here/staging/{name}", b"left")
    job = staging.Staging("gs://here/staging", "gs://here/out", "job")
    job.begin(keep=["plan.json"])
    job.check()
    assert sorted(storage.below("gs://here/staging")) == ["gs://here/staging/plan.json", job.mark]
    job.leave()
    assert list(storage.below("gs://here/staging")) == ["gs://here/staging/plan.json"]


def test_brackets_in_an_outputs_name_touch_no_other_outputs_folder(server: Faulty) -> None:
    with staging.begun(staging.of_prediction("gs://here/sub1.csv")) as other:
        with staging.begun(staging.of_prediction("gs://here/sub[1].csv")) as own:
            storage.write_bytes(f"{own.own}/scores-00000.npz", b"own")
            other.check()
        other.check()
        assert storage.match("gs://here/**") == [other.mark]


def test_a_disk_without_locks_is_treated_as_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, "no locks here")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    output = str(tmp_path / "out.csv")
    with (
        staging.begun(staging.of_prediction(output)) as first,
        staging.begun(staging.of_prediction(output)) as second,
    ):
        second.check()
        with pytest.raises(UserError, match="another run"):
            first.check()
    assert left_in(tmp_path) == set()
    monkeypatch.undo()
    with staging.begun(staging.of_prediction(output)):
        pass
    assert left_in(tmp_path) == set()


def test_on_a_disk_without_locks_a_run_that_is_overtaken_while_it_scores_says_so(
    run: Run, chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = str(tmp_path / "out.csv")
    whole = Scorer.score

    def overtaken(*given: Any) -> Scored:
        staging.Staging(staging.beside(output), output, "run").begin()
        return whole(*given)

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, "no locks here")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(Scorer, "score", overtaken)
    done = run("--images", chips, output=output)
    assert done.code == 2
    assert f"another run to {output} began before this one was done" in done.err


@pytest.mark.parametrize("place", ["disk", "store"])
def test_what_is_no_runs_is_neither_removed_nor_written_beside(
    place: str, tmp_path: Path, server: Faulty
) -> None:
    output = "gs://here/out.csv" if place == "store" else str(tmp_path / "out.csv")
    kept = f"{output}.partial/notes/mine.txt"
    storage.make_folder(storage.split(kept)[0])
    storage.write_bytes(kept, b"mine")
    named = re.escape(f"--output: {output}.partial/notes is not Canopy's")
    with pytest.raises(UserError, match=named), staging.begun(staging.of_prediction(output)):
        pass
    assert storage.read_bytes(kept) == b"mine"


def test_a_file_in_the_way_of_the_staging_folder_is_one_sentence(tmp_path: Path) -> None:
    output = str(tmp_path / "out.csv")
    Path(f"{output}.partial").write_text("mine")
    with pytest.raises(UserError, match="File exists"), staging.begun(staging.of_prediction(output)):
        pass
    assert Path(f"{output}.partial").read_text() == "mine"


def test_a_staging_folder_that_cannot_be_listed_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_: Path) -> Iterator[Path]:
        raise PermissionError

    (tmp_path / "out.csv.partial").mkdir()
    monkeypatch.setattr(Path, "iterdir", denied)
    said = re.escape(f"cannot list {tmp_path}/out.csv.partial: access is denied")
    with (
        pytest.raises(UserError, match=said),
        staging.begun(staging.of_prediction(str(tmp_path / "out.csv"))),
    ):
        pass


def test_without_leave_to_write_the_folder_is_named(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    with (
        pytest.raises(UserError, match="access is denied"),
        staging.begun(staging.of_prediction(str(tmp_path / "out.csv"))),
    ):
        pass
