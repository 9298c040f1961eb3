"""The same pipeline gives the same bytes on every runner."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from beam_jobs import runners
from beam_jobs.runners import Choice
from canopy import machine
from canopy.cli import TryAgainError, UserError
from tests.beam_jobs.making import Archive, Run, noise, planet


@contextmanager
def server(module: str, port: int, flag: str, folder: Path) -> Iterator[None]:
    """One of Beam's own servers, in a process of its own and in another folder than the job's."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    source = str(Path(__file__).parents[2])
    with (folder / f"{port}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, flag, str(port)],
            stdout=log, stderr=log, cwd=folder, env={**os.environ, "PATH": path, "PYTHONPATH": source},
        )  # fmt: skip
        try:
            for _ in range(300):
                with socket.socket() as probe:
                    if probe.connect_ex(("localhost", port)) == 0:
                        break
                assert process.poll() is None, (folder / f"{port}.log").read_text()
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def uneven(archive: Archive) -> Archive:
    """An archive whose rejects leave shards uneven."""
    archive.fill(70)
    for i in range(12):
        archive.put(f"cut_{i}", planet(noise(i))[:400])
    return archive


FLAGS = ["--num_shards", "5", "--max_bad_fraction", "0.5"]


@pytest.mark.parametrize("mode", ["multi_threading", "multi_processing"])
def test_direct_runners_in_every_mode_give_the_same_bytes(
    uneven: Archive, run: Run, tmp_path: Path, mode: str
) -> None:
    one = run(uneven, *FLAGS, output=tmp_path / "one")
    other = run(
        uneven, *FLAGS, "--runner=DirectRunner", f"--direct_running_mode={mode}", "--direct_num_workers=2",
        output=tmp_path / "other",
    )  # fmt: skip
    assert other.code == 0, other.err
    assert other.canopy["run"]["mode"] == mode
    assert other.canopy["run"]["workers"] == 2
    assert other.shards == one.shards
    assert other.rejects == one.rejects
    assert {**other.canopy, "run": 0} == {**one.canopy, "run": 0}


def test_beam_may_be_told_to_require_the_type_of_every_step(archive: Archive, run: Run) -> None:
    done = run(archive.fill(3), "--type_check_strictness", "ALL_REQUIRED", "--runtime_type_check")
    assert done.code == 0, done.err


def test_processes_of_beam_do_not_look_for_each_other_behind_a_proxy(
    archive: Archive, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.fill(3)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "no_grpc_proxy", "grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    done = run(archive, "--direct_running_mode=multi_processing", "--direct_num_workers=2")
    assert done.code == 0, done.err


@pytest.mark.parametrize("shards", ["5", "1"], ids=["many_shards", "fewer_shards_than_processes"])
def test_processes_beside_beam_give_the_same_bytes(
    uneven: Archive, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: str
) -> None:
    flags = ["--num_shards", shards, "--max_bad_fraction", "0.5"]
    one = run(uneven, *flags, output=tmp_path / "one")
    monkeypatch.setattr(runners, "MANY_IMAGES", 1)
    other = run(uneven, *flags, "--direct_num_workers=2", output=tmp_path / "other")
    assert other.code == 0, other.err
    assert other.canopy["run"]["processes"] == 2
    assert other.shards == one.shards
    assert other.rejects == one.rejects
    assert {**other.canopy, "run": 0} == {**one.canopy, "run": 0}


def test_the_portable_runner_with_workers_elsewhere_gives_the_same_bytes(
    uneven: Archive, run: Run, tmp_path: Path
) -> None:
    one = run(uneven, *FLAGS, output=tmp_path / "one")
    jobs, workers = free_port(), free_port()
    with ExitStack() as stack:
        stack.enter_context(
            server("apache_beam.runners.portability.local_job_service_main", jobs, "--port", tmp_path)
        )
        stack.enter_context(
            server("apache_beam.runners.worker.worker_pool_main", workers, "--service_port", tmp_path)
        )
        other = run(
            uneven, *FLAGS, "--runner=PortableRunner", f"--job_endpoint=localhost:{jobs}",
            "--environment_type=EXTERNAL", f"--environment_config=localhost:{workers}",
            output=tmp_path / "other",
        )  # fmt: skip
    assert other.code == 0, other.err
    assert other.shards == one.shards
    assert {**other.canopy, "run": 0} == {**one.canopy, "run": 0}


def test_a_runner_whose_state_changes_only_for_those_who_wait_gives_the_same_bytes_and_ends(
    uneven: Archive, run: Run, tmp_path: Path
) -> None:
    one = run(uneven, *FLAGS, output=tmp_path / "one")
    other = run(uneven, *FLAGS, "--runner=BundleBasedDirectRunner", output=tmp_path / "other")
    assert other.code == 0, other.err
    assert other.shards == one.shards


@pytest.mark.parametrize("refused", [False, True])
def test_an_interrupt_ends_a_run_elsewhere_too(refused: bool) -> None:
    class Run:
        cancelled = False

        def wait_until_finish(self) -> None:
            raise KeyboardInterrupt

        def cancel(self) -> None:
            self.cancelled = True
            if refused:
                raise RuntimeError("its server is gone")

    run = Run()
    with pytest.raises(KeyboardInterrupt):
        runners.wait(run, "images", 1, "converting")
    assert run.cancelled


def choose(*arguments: str, images: int = 1000, remote: bool = False) -> Choice:
    return runners.choose(
        runners.parse_options(arguments),
        arguments,
        images=images,
        remote=remote,
        processes_from=runners.MANY_IMAGES,
    )


def test_the_default_fits_the_size_and_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 1)
    assert choose(images=10**6) == Choice("FnApiRunner", "in_memory", 1, 1)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    assert choose(images=2_000) == Choice("FnApiRunner", "in_memory", 1, 2)
    assert choose(images=8_000) == Choice("FnApiRunner", "in_memory", 1, 1, processes=2)
    monkeypatch.setattr(machine, "cores", lambda: 16)
    assert choose(images=1000) == Choice("FnApiRunner", "in_memory", 1, 16)
    assert choose(images=10**6) == Choice("FnApiRunner", "in_memory", 1, 1, processes=16)


def test_many_images_of_a_store_are_read_by_many_threads_of_several_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 2)
    assert choose(images=8_000, remote=True) == Choice("FnApiRunner", "in_memory", 1, 8)
    assert choose(images=10**6, remote=True) == Choice("FnApiRunner", "multi_processing", 2, 8)


def test_work_that_keeps_all_cores_busy_by_itself_stays_in_one_process() -> None:
    choice = runners.choose(
        runners.parse_options([]), [], images=10**6, remote=False, processes_from=math.inf
    )
    assert (choice.mode, choice.processes) == ("in_memory", 0)


def test_what_the_user_says_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 16)
    assert choose("--direct_running_mode=in_memory", images=10**6).processes == 0
    assert choose("--direct_running_mode", "multi_processing", images=10).mode == "multi_processing"
    assert choose("--direct_num_workers=3", images=10**6).processes == 3
    assert choose("--direct_num_workers=1", images=10**6).processes == 0
    assert choose("--runner=FlinkRunner").runner == "FlinkRunner"


def test_a_negative_number_of_workers_is_refused() -> None:
    with pytest.raises(UserError, match="--direct_num_workers must not be negative, and is -3"):
        choose("--direct_num_workers=-3")


def test_misspelt_beam_options_are_refused() -> None:
    with pytest.raises(UserError, match="--direct_num_worker "):
        runners.parse_options(["--direct_num_worker", "3"])
    with pytest.raises(UserError, match="direct_running_mode"):
        runners.parse_options(["--direct_running_mode=fast"])
    runners.parse_options(["--runner=FlinkRunner", "--parallelism=4"])


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        ("UserError: labels.csv is gone [while running 'Convert']", UserError, "labels.csv is gone"),
        ("Traceback:\nbeam_jobs.objects.UnavailableError: S3 fails\n", TryAgainError, "S3 fails"),
        (
            "canopy.cli.TryAgainError: cannot read a: Stale file handle",
            TryAgainError,
            "cannot read a: Stale file handle",
        ),
        (
            "Pipeline job-1 failed in state CANCELLED: None",  # of a job server's
            UserError,
            "the job was cancelled where its runner runs it",
        ),
        (
            "Dataflow pipeline failed. State: CANCELLED, Error:\nNone",
            UserError,
            "the job was cancelled where its runner runs it",
        ),
        ("MemoryError [while running 'Convert']", MemoryError, ""),
    ],
)
def test_what_ended_a_run_elsewhere_comes_out_as_what_it_was(
    words: str, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind) as raised, runners.explained():
        raise RuntimeError(words)
    assert str(raised.value) == said
