"""On a cluster: Dask's scheduler and workers, each a process of its own, in another folder than the job's.

Of the runners that spread work over machines it is the one that comes as Python packages alone.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from beam_jobs.runners.running import ENDED_EARLY
from tests.beam_jobs.making import Archive, noise, planet
from tests.beam_jobs.predicting import model as model
from tests.beam_jobs.runners.test_running import free_port
from tests.conftest import ROOT

RUNNER = "--runner=apache_beam.runners.dask.dask_runner.DaskRunner"
SMALL_FILE = 40  # blocks of 512 bytes: the largest file that a worker may write


@dataclass(frozen=True)
class Cluster:
    """Its processes, and the scheduler's address."""

    address: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]

    @property
    def flags(self) -> list[str]:
        return [RUNNER, f"--dask_client_address={self.address}"]


@contextmanager
def cluster(folder: Path, limit: str = "unlimited") -> Iterator[Cluster]:
    """A scheduler with two workers, which may write files up to a limit."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"

    def start(module: str, *flags: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{module}", *flags, "--no-dashboard"]
        limited = ["sh", "-c", f'ulimit -f {limit} && exec "$@"', "sh", *command]
        with (folder / f"{module}.log").open("ab") as log:
            return subprocess.Popen(limited, stdout=log, stderr=log, cwd=folder)

    scheduler = start("dask_scheduler", "--host=127.0.0.1", f"--port={port}")
    flags = [address, "--nthreads=1", "--no-nanny", "--host=127.0.0.1"]
    workers = [start("dask_worker", *flags, f"--local-directory={folder / str(i)}") for i in range(2)]
    try:
        yield Cluster(address, scheduler, workers)
    finally:
        for process in (*workers, scheduler):
            process.terminate()
            process.wait()


def lose(process: subprocess.Popen[bytes], output: Path) -> None:
    """Kills a process once a job has written its first shard."""
    while not list(output.glob(".canopy-staging/*/shards/*.tfrecord-*")):
        time.sleep(0.01)
    process.kill()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


def run(module: str, *flags: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"beam_jobs.{module}", *map(str, flags)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def preprocess(archive: Archive, output: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    inputs = ("--images", archive.folder, "--labels", archive.labels, "--output", output)
    return run("preprocess", *inputs, "--num_shards=8", "--max_bad_fraction=0.1", *flags)


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.tfrecord-*")}


def test_a_cluster_writes_the_bytes_that_one_machine_does(
    archive: Archive, sound: Cluster, tmp_path: Path
) -> None:
    archive.fill(60).put("cut", planet(noise(1))[:300])  # a reject, for which the shards are evened out
    one = preprocess(archive, tmp_path / "one")
    other = preprocess(archive, tmp_path / "other", *sound.flags)
    assert one.returncode == 0, one.stderr
    assert other.returncode == 0, other.stderr
    assert other.stderr == "converting 61 images; this runner tells no progress\n"
    assert len(shards(tmp_path / "one")) == 9
    assert shards(tmp_path / "other") == shards(tmp_path / "one")


def test_a_cluster_predicts_what_one_machine_does(
    archive: Archive, sound: Cluster, model: Path, tmp_path: Path
) -> None:
    flags = ("--model", model, "--images", archive.fill(40).folder)
    one = run("predict", *flags, "--output", tmp_path / "one.csv")
    other = run("predict", *flags, "--output", tmp_path / "other.csv", *sound.flags)
    assert one.returncode == 0, one.stderr
    assert other.returncode == 0, other.stderr
    assert (tmp_path / "other.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()


def test_a_scheduler_that_does_not_answer_is_one_sentence(archive: Archive, tmp_path: Path) -> None:
    flags = (RUNNER, f"--dask_client_address=tcp://127.0.0.1:{free_port()}", "--dask_connection_timeout=1")
    done = preprocess(archive.fill(2), tmp_path / "out", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --runner apache_beam.runners.dask.dask_runner.DaskRunner: ")
    assert done.stderr.count("\n") == 1
    assert not list((tmp_path / "out").glob("[!.]*"))


def test_a_mistake_that_a_worker_meets_is_the_users_one_sentence(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    archive.fill(8)
    for i in range(8):
        archive.put(f"large_{i}", planet(noise(i, 512, 512)))
    with cluster(tmp_path / "cluster", str(SMALL_FILE)) as full:
        done = preprocess(archive, tmp_path / "out", *full.flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: cannot write " in done.stderr
    assert done.stderr.splitlines()[-1].endswith(": File too large")
    assert not shards(tmp_path / "out")


@pytest.mark.slow
def test_a_worker_that_is_lost_costs_no_image(archive: Archive, tmp_path: Path) -> None:
    archive.fill(10)
    for i in range(120):
        archive.put(f"large_{i}", planet(noise(i, 400, 400)))
    (tmp_path / "cluster").mkdir()
    with cluster(tmp_path / "cluster") as found:
        threading.Thread(target=lose, args=(found.workers[0], tmp_path / "other"), daemon=True).start()
        other = preprocess(archive, tmp_path / "other", *found.flags)
    one = preprocess(archive, tmp_path / "one")
    assert found.workers[0].returncode == -signal.SIGKILL
    assert other.returncode == 0, other.stderr
    assert shards(tmp_path / "other") == shards(tmp_path / "one")
    assert one.stdout.split("time")[0] == other.stdout.split("time")[0]


@pytest.mark.slow
def test_a_scheduler_that_is_lost_is_worth_another_try(archive: Archive, tmp_path: Path) -> None:
    for i in range(120):
        archive.put(f"large_{i}", planet(noise(i, 400, 400)))
    (tmp_path / "cluster").mkdir()
    with cluster(tmp_path / "cluster") as found:
        threading.Thread(target=lose, args=(found.scheduler, tmp_path / "out"), daemon=True).start()
        done = preprocess(archive, tmp_path / "out", *found.flags)
    assert (done.returncode, done.stdout) == (75, "")
    assert f"out of reach for now: {ENDED_EARLY}" in done.stderr.splitlines()  # Dask's client complains, too
    assert not shards(tmp_path / "out")
