"""An output folder that is not free: another job writes there, or something is in the way."""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from beam_jobs import commit, staging, storage
from beam_jobs.convert import convert_shard
from beam_jobs.runners import running
from beam_jobs.runners.processes import crew
from beam_jobs.work import Work
from canopy import cli, locks
from canopy.cli import UserError
from tests.beam_jobs.gcs_server import Faulty
from tests.beam_jobs.making import Archive, Run
from tests.beam_jobs.test_finding import not_as_root

SHARD = "planet-train.tfrecord-00000-of-00001"


def begun(folder: Path | str, overwrite: bool = False) -> commit.Output:
    """A job that has said which shard it writes."""
    output = commit.Output(str(folder))
    output.begin(overwrite)
    output.claim([SHARD])
    return output


def finish(output: commit.Output, text: str = "") -> None:
    """Writes the shard and all else."""
    storage.write_bytes(output.shard_path(SHARD), text.encode())
    told = {"splits": {"train": {"shards": [{"name": SHARD}]}}}
    output.commit([SHARD], {"canopy.json": json.dumps(told).encode()}, b"{}")


def names_in(folder: Path | str) -> set[str]:
    """All that is in an output folder of either kind."""
    if storage.is_remote(str(folder)):
        return {path.removeprefix(f"{folder}/") for path in storage.below(str(folder))}
    return {path.name for path in Path(folder).iterdir()}


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Lets something happen just before the next lock is taken."""
    take = locks.take

    def taking(path: str, busy: str) -> object:
        monkeypatch.setattr(locks, "take", take)
        act()
        return take(path, busy)

    monkeypatch.setattr(locks, "take", taking)


@pytest.mark.parametrize("overwrite", [False, True])
def test_all_is_on_the_disk_before_the_marker_and_the_marker_before_the_job_ends(
    overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if overwrite:
        finish(begun(tmp_path))
    job, synced = begun(tmp_path, overwrite), list[set[str]]()
    monkeypatch.setattr(storage, "sync_folder", lambda folder: synced.append(names_in(folder)))
    finish(job)
    rest = {SHARD, "canopy.json", commit.STAGING}
    gone = [rest] if overwrite else []  # the earlier set's marker goes first
    assert synced == [*gone, rest, rest | {"dataset_info.json"}]


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        ("labels.txt", True), (SHARD, True), (f"{commit.STAGING}/run.json", True), ("a.jpg", False),
        ("below/labels.txt", False), ("../labels.txt", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("folder", ["/out", "gs://here/out/"])
def test_of_the_files_in_its_folder_a_job_knows_its_own(folder: str, path: str, ours: bool) -> None:
    assert commit.writes(folder, f"{folder.rstrip('/')}/{path}") is ours
    assert not commit.writes(folder, path)


def test_two_jobs_at_a_time_do_not_write_to_one_folder(tmp_path: Path) -> None:
    first = commit.Output(str(tmp_path))
    first.begin(overwrite=False)
    with pytest.raises(UserError, match="another job"):
        commit.Output(str(tmp_path)).begin(overwrite=False)
    del first
    commit.Output(str(tmp_path)).begin(overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_job_that_ends_while_another_begins_keeps_its_shards_or_is_replaced_whole(
    overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = begun(tmp_path)
    meanwhile(monkeypatch, lambda: finish(first, "first"))
    second = commit.Output(str(tmp_path))
    if overwrite:
        second.begin(overwrite=True)
        assert (tmp_path / SHARD).read_text() == "first"
        second.claim([SHARD])
        finish(second, "second")
    else:
        with pytest.raises(UserError, match="whole data set"):
            second.begin(overwrite=False)
    assert (tmp_path / SHARD).read_text() == ("second" if overwrite else "first")
    assert names_in(tmp_path) == {SHARD, "canopy.json", "dataset_info.json"}


def test_who_begins_while_another_job_tidies_up_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, later = begun(tmp_path), []
    release = locks.release

    def releasing(file: object) -> None:
        with pytest.raises(UserError, match="another job"):  # its lock is there until all else is gone
            begun(tmp_path, overwrite=True)
        assert {path.name for path in (tmp_path / commit.STAGING).iterdir()} == {staging.LOCK}
        monkeypatch.setattr(locks, "release", release)
        release(file)  # type: ignore[arg-type]
        later.append(begun(tmp_path, overwrite=True))

    monkeypatch.setattr(locks, "release", releasing)
    finish(first, "first")
    finish(later[0], "later")
    assert (tmp_path / SHARD).read_text() == "later"
    assert names_in(tmp_path) == {SHARD, "canopy.json", "dataset_info.json"}


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOSYS, "no locks here")


@pytest.fixture(params=["store", "disk without locks"])
def without_locks(
    request: pytest.FixtureRequest, tmp_path: Path, server: Faulty, monkeypatch: pytest.MonkeyPatch
) -> str:
    """An output folder where no job can be kept out."""
    monkeypatch.setattr(fcntl, "flock", no_locks)
    return "gs://here/out" if request.param == "store" else str(tmp_path / "out")


def test_where_there_are_no_locks_the_later_job_is_whole_and_the_earlier_one_ends(without_locks: str) -> None:
    first = begun(without_locks)
    second = begun(without_locks)
    for doing in (
        lambda: first.commit([SHARD], {}, b""),
        lambda: first.claim([SHARD]),
        lambda: first.write_rejects(b""),
    ):
        with pytest.raises(UserError, match=r"another job to .* began before this one was done"):
            doing()
        assert not storage.exists(storage.join(without_locks, "dataset_info.json"))
    finish(second, "second")
    with pytest.raises(UserError, match="another job"):
        first.commit([], {"canopy.json": b"first"}, b"first")
    assert names_in(without_locks) == {SHARD, "canopy.json", "dataset_info.json"}
    third = begun(without_locks, overwrite=True)
    finish(third, "third")
    assert storage.read_bytes(storage.join(without_locks, SHARD)) == b"third"
    assert names_in(without_locks) == {SHARD, "canopy.json", "dataset_info.json"}


def test_where_there_are_no_locks_a_job_that_is_refused_ends_no_other(without_locks: str) -> None:
    finish(begun(without_locks), "first")
    job = commit.Output(without_locks)
    job.begin(overwrite=True)
    with pytest.raises(UserError, match="whole data set"):
        begun(without_locks)
    finish(job, "second")


@pytest.mark.parametrize("moment", ["canopy.json", "dataset_info.json"])
def test_a_marker_never_stands_where_a_later_job_has_begun(
    moment: str, without_locks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = begun(without_locks)
    write = storage.write_bytes

    def writing(path: str, data: bytes) -> None:
        if path.endswith(f"/{moment}"):
            monkeypatch.setattr(storage, "write_bytes", write)
            begun(without_locks)
        write(path, data)

    monkeypatch.setattr(storage, "write_bytes", writing)
    with pytest.raises(UserError, match="another job"):
        finish(first, "first")
    assert not storage.exists(storage.join(without_locks, "dataset_info.json"))


def test_a_job_that_cannot_see_yet_that_it_is_overtaken_puts_nothing_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", no_locks)
    first = begun(tmp_path)
    second = begun(tmp_path)
    with monkeypatch.context() as blind:
        blind.setattr(staging.Staging, "check", lambda _: None)
        with pytest.raises(UserError, match="does not exist"):
            first.commit([], {"canopy.json": b"first"}, b"first")
    assert names_in(tmp_path) == {commit.STAGING}
    finish(second, "second")
    assert names_in(tmp_path) == {SHARD, "canopy.json", "dataset_info.json"}


def test_a_job_that_is_overtaken_while_it_renames_its_shards_says_so_and_not_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", no_locks)
    first = begun(tmp_path)

    def meanwhile(_: object) -> None:
        monkeypatch.undo()
        monkeypatch.setattr(fcntl, "flock", no_locks)
        begun(tmp_path)

    monkeypatch.setattr(commit.Output, "_remove_earlier", meanwhile)
    with pytest.raises(UserError, match=r"another job to .* began before this one was done"):
        finish(first, "first")
    assert names_in(tmp_path) == {commit.STAGING}


def test_brackets_in_a_stores_folder_are_part_of_its_name(server: Faulty) -> None:
    other, job = begun("gs://here/run1"), begun("gs://here/run[1]")
    finish(job, "first")
    finish(other, "other")
    with pytest.raises(UserError, match="whole data set"):
        begun("gs://here/run[1]")
    for folder in ("gs://here/run[1]", "gs://here/run1"):
        assert names_in(folder) == {SHARD, "canopy.json", "dataset_info.json"}


def test_without_leave_to_write_the_folder_is_named_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out" / commit.STAGING).mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "out", tmp_path / "out" / commit.STAGING):
        folder.chmod(0o555)
    monkeypatch.chdir(tmp_path)  # nobody else may come by the folders above
    with not_as_root(), pytest.raises(UserError, match=r"cannot write out/.*: access is denied"):
        begun("out")


@pytest.mark.parametrize("name", ["labels.txt", SHARD, "dataset_info.json"])
def test_a_folder_in_the_place_of_a_final_file_is_refused_before_the_work(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"holds a folder {name}, where a file"):
        begun(tmp_path, overwrite=True)
    assert names_in(tmp_path) == {name}


def test_a_folder_that_comes_in_the_way_of_a_final_file_is_one_sentence(tmp_path: Path) -> None:
    for name in (SHARD, "canopy.json"):
        output = begun(tmp_path / name)
        (tmp_path / name / name).mkdir()
        with pytest.raises(UserError, match=f"cannot write .*{name}: Is a directory"):
            finish(output)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_job_that_is_overtaken_while_it_converts_says_so_and_not_what_is_missing(
    archive: Archive, run: Run, server: Faulty, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    archive.fill(6)
    convert = running.run

    def overtaken(*arguments: Any, **named: Any) -> None:
        if when == "after":
            convert(*arguments, **named)
        commit.Output("gs://here/out").begin(overwrite=False)
        if when == "before":
            convert(*arguments, **named)

    monkeypatch.setattr(running, "run", overtaken)
    done = run(archive, "--output", "gs://here/out")
    assert done.code == cli.EXIT_USER
    assert done.err.splitlines()[-1].startswith("error: --output: another job to gs://here/out began before")


def test_a_folder_that_is_removed_under_a_job_is_told_as_that(
    archive: Archive, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = running.run

    def removed(*arguments: Any, **named: Any) -> None:
        shutil.rmtree(tmp_path / "out")
        convert(*arguments, **named)

    monkeypatch.setattr(running, "run", removed)
    done = run(archive.fill(6))
    assert done.code == cli.EXIT_USER
    assert done.err.splitlines()[-1] == f"error: --output: {done.folder} was removed before this job was done"
    assert not done.folder.exists()


def test_what_a_killed_jobs_workers_still_finish_is_none_of_the_next_jobs(
    archive: Archive, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.fill(12)
    flags = ("--num_shards", "3")
    wanted = run(archive, *flags, "--seed", "2", output=tmp_path / "reference").shards
    monkeypatch.setattr(fcntl, "flock", no_locks)  # they end with the process, which a test's does not
    convert, left = running.run, list[Work]()

    def killed(*arguments: Any, **named: Any) -> None:
        lists = (tmp_path / "out" / commit.STAGING).glob("*/work/*")
        left.extend(Work.load(str(path)) for path in lists)
        raise KeyboardInterrupt

    def late(*arguments: Any, **named: Any) -> None:
        convert(*arguments, **named)
        for work in left:
            with suppress(UserError):
                convert_shard(work, crew(threads=1, processes=0))

    monkeypatch.setattr(running, "run", killed)
    assert run(archive, *flags).code == cli.EXIT_INTERRUPTED
    monkeypatch.setattr(running, "run", late)
    done = run(archive, *flags, "--seed", "2")
    assert done.code == 0, done.err
    assert done.shards == wanted
