"""No reader ever takes a part for the whole, whenever the job dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import pytest

from beam_jobs import commit, preprocess, staging
from beam_jobs.stores import gcs
from canopy.cli import UserError
from tests.beam_jobs.gcs_server import Faulty
from tests.beam_jobs.making import Archive, Run, noise, planet

# What Python reports before it happens: each is a moment at which the job may be killed.
EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.scandir", "os.listdir")


def dies_at(moment: int, place: str, job: Callable[[], object], events: tuple[str, ...] = EVENTS) -> int:
    """Runs `job` in a process that kills itself at its n-th touch of a place.

    Args:
        moment: which touch.
        place: what an event's arguments name where it is one.
        job: to run.
        events: what counts, by the names that Python reports.

    Returns:
        The signal it died of; 0 where it ended before that.
    """
    child = os.fork()
    if child == 0:
        seen = 0

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal seen
            if event in events and any(place in str(argument) for argument in arguments):
                seen += 1
                if seen == moment:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            job()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def half_written(folder: Path) -> list[Path]:
    """What a job has left in its staging folder, beside a few words for the next one."""
    inside = folder / commit.STAGING
    kept = (staging.LOCK, commit.RUN_JSON)
    return [
        path for path in inside.rglob("*") if path.name not in kept and not path.name.startswith(staging.MARK)
    ]


def is_whole(folder: Path) -> bool:
    """What a reader relies on: with the marker there, every shard is there with its checksum."""
    if not (folder / "dataset_info.json").exists():
        return False
    told = json.loads((folder / "canopy.json").read_text())
    for split in told["splits"].values():
        for shard in split["shards"]:
            data = (folder / shard["name"]).read_bytes()
            assert f"{google_crc32c.value(data):08x}" == shard["crc32c"]
    for name in ("labels.txt", "features.json", "rejects.jsonl"):
        assert (folder / name).exists()
    return True


@pytest.mark.parametrize("replacing", [False, True])
def test_killed_at_any_moment_the_same_command_ends_in_the_same_bytes(
    archive: Archive, run: Run, tmp_path: Path, replacing: bool
) -> None:
    archive.fill(30)
    archive.put("cut", planet(noise(1))[:400])
    flags = ["--num_shards", "3", "--max_bad_fraction", "0.1", *(["--overwrite"] if replacing else [])]
    wanted = run(archive, *flags, output=tmp_path / "reference").shards
    folder = tmp_path / "out"
    moment, deaths = 1, 0
    while True:
        if replacing and not (folder / "dataset_info.json").exists():
            assert run(archive, "--num_shards", "5", "--max_bad_fraction", "0.1", output=folder).code == 0
        command = [
            "--images",
            str(archive.folder),
            "--labels",
            str(archive.labels),
            "--output",
            str(folder),
            *flags,
        ]
        died = dies_at(moment, str(folder), lambda command=command: preprocess.main(command))  # type: ignore[misc]
        whole = is_whole(folder) if folder.exists() else False
        if not died:
            assert whole
            break
        deaths += 1
        if not replacing or not whole:
            again = run(archive, *flags, output=folder)
            if whole:
                assert again.code == 2
                assert "--overwrite" in again.err
            else:
                assert again.code == 0, again.err
            assert is_whole(folder)
            assert again.shards == wanted
            leftovers = {path.name for path in folder.iterdir()} - {*wanted, *commit.FIXED, commit.STAGING}
            assert not leftovers
            if not replacing:
                for path in sorted(folder.rglob("*"), reverse=True):
                    path.rmdir() if path.is_dir() else path.unlink()
                folder.rmdir()
        moment += 1 + moment // 6
    assert deaths >= 10


@pytest.mark.slow
def test_killed_while_it_replaces_a_set_in_a_store_the_same_command_ends_in_the_same_bytes(
    archive: Archive, run: Run, tmp_path: Path, server: Faulty
) -> None:
    archive.fill(30)
    inputs = ["--images", str(archive.folder), "--labels", str(archive.labels)]
    wanted = run(archive, "--num_shards", "3", output=tmp_path / "reference").shards
    folder = tmp_path / "store" / "here" / "out"
    command = [*inputs, "--output", "gs://here/out", "--num_shards", "3", "--overwrite"]

    def job() -> None:
        gcs._client.cache_clear()  # the connections are the parent's
        preprocess.main(command)

    moment, states = 1, []
    while True:
        earlier = run(None, *inputs, "--output", "gs://here/out", "--num_shards", "5", "--overwrite")
        assert earlier.code == 0, earlier.err
        if not dies_at(moment, "/here/o", job, ("http.client.send",)):
            break
        states.append(is_whole(folder))
        again = run(None, *command)
        assert again.code == 0, again.err
        assert is_whole(folder)
        assert {path.name: path.read_bytes() for path in folder.glob("*.tfrecord-*")} == wanted
        leftovers = {path.name for path in folder.iterdir() if path.is_file()} - {*wanted, *commit.FIXED}
        assert not leftovers
        moment += 1 + moment // 4
    assert is_whole(folder)
    assert states[0]
    assert False in states  # some of the moments lay between the two sets
    assert len(states) >= 8


def test_what_a_killed_job_left_goes_before_the_next_one_works(tmp_path: Path) -> None:
    shard = "planet-train.tfrecord-00000-of-00001"
    killed = commit.Output(str(tmp_path))
    killed.begin(overwrite=False)
    killed.claim([shard])
    (tmp_path / shard).touch()
    del killed
    commit.Output(str(tmp_path)).begin(overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == [commit.STAGING]


def test_two_jobs_do_not_share_an_output_folder_with_strangers(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("{}")
    with pytest.raises(UserError, match="Canopy did not write"):
        commit.Output(str(tmp_path)).begin(overwrite=True)
    assert (tmp_path / "dataset_info.json").read_text() == "{}"


@pytest.mark.parametrize(
    "name", ["../../precious.txt", "/etc/passwd", "mine.txt", "planet-train.tfrecord", 7]
)
def test_a_forged_list_of_files_removes_nothing_else(tmp_path: Path, name: object) -> None:
    folder = tmp_path / "a" / "out"
    (folder / commit.STAGING).mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    (tmp_path / "precious.txt").write_text("precious")
    (folder / commit.STAGING / commit.RUN_JSON).write_text(json.dumps({"files": [name]}))
    commit.Output(str(folder)).begin(overwrite=True)
    assert (tmp_path / "precious.txt").read_text() == "precious"
    assert (folder / "mine.txt").read_text() == "mine"


DAMAGED = [b"{", b"\xff", b"[]", b"7", b"{}", b'{"splits": []}', b'{"splits": {"train": 7}}', b'{"files": 7}']


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_list_of_files_is_one_sentence_and_removes_nothing(tmp_path: Path, content: bytes) -> None:
    begun = tmp_path / "begun" / commit.STAGING
    begun.mkdir(parents=True)
    (begun / commit.RUN_JSON).write_bytes(content)
    (begun.parent / "labels.txt").write_text("water")
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "canopy.json").write_bytes(content)
    (whole / "dataset_info.json").write_text("{}")
    for folder, name in ((begun.parent, "run.json"), (whole, "canopy.json")):
        before = {path.name for path in folder.iterdir()}
        with pytest.raises(UserError, match=f"--output: .*{name} is damaged: "):
            commit.Output(str(folder)).begin(overwrite=True)
        assert {path.name for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    "content", [*DAMAGED, b'{"run": 7}', b'{"run": {}}', b'{"run": {"id": "another"}}', None]
)
def test_what_does_not_say_that_this_run_wrote_it_is_not_done_by_it(
    tmp_path: Path, content: bytes | None
) -> None:
    (tmp_path / "dataset_info.json").write_text("{}")
    if content is not None:
        (tmp_path / "canopy.json").write_bytes(content)
    assert commit.done_by(str(tmp_path), "a Job") is None


def test_an_output_that_is_a_file_or_denied_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="file is a file, not a folder"):
        commit.Output(str(tmp_path / "file")).look(overwrite=False)
    with pytest.raises(UserError, match=r"cannot make the folder .*: a part of its path is a file"):
        commit.Output(str(tmp_path / "file" / "below")).begin(overwrite=False)


def test_a_full_disk_is_one_clear_sentence_and_leaves_no_marker(archive: Archive, tmp_path: Path) -> None:
    archive.fill(60)
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)); "
    code = limit + "from beam_jobs.preprocess import main; sys.exit(main(sys.argv[1:]))"
    flags = [
        "--images",
        str(archive.folder),
        "--labels",
        str(archive.labels),
        "--output",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *flags, "--num_shards", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "cannot write" in done.stderr
    assert "too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out" / "dataset_info.json").exists()
    assert not half_written(tmp_path / "out")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("mode", ["in_memory", "multi_processing", ""])
def test_a_signal_ends_a_job_and_its_workers_with_one_word(
    archive: Archive, tmp_path: Path, mode: str, number: signal.Signals
) -> None:
    archive.fill(3000)  # enough for processes beside Beam where nothing else is said
    flags = [
        *([f"--direct_running_mode={mode}"] if mode else ["--direct_num_workers=2"]),
        "--images",
        str(archive.folder),
        "--labels",
        str(archive.labels),
        "--output",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "beam_jobs.preprocess", *flags, "--image_format", "png"],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    while not any((tmp_path / "out" / commit.STAGING).glob(f"{staging.OWN}*/shards/*")):
        assert process.poll() is None
        time.sleep(0.02)
    # A terminal's Ctrl-C goes to all, a cluster's SIGTERM to the first process.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    _, said = process.communicate(timeout=60)  # until the last worker has let go of stderr
    ends = {signal.SIGINT: (130, "interrupted\n"), signal.SIGTERM: (143, "stopped by SIGTERM\n")}
    # A slow machine may have told of its progress before.
    said = "".join(line for line in said.splitlines(True) if not line.startswith("converting: "))
    assert (process.returncode, said) == ends[number]
    assert not (tmp_path / "out" / "dataset_info.json").exists()
    assert not half_written(tmp_path / "out")
