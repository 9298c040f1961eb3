"""A pipeline's run: the same bytes on every runner, progress from each, failures told."""

from __future__ import annotations

import contextlib
import itertools
import os
import pty
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from beam_jobs.runners import choosing, running
from canopy import progress
from canopy.cli import TryAgainError, UserError
from tests.beam_jobs.making import Archive, Run, Shown, noise, planet
from tests.conftest import ROOT


@contextmanager
def server(module: str, port: int, flag: str, folder: Path) -> Iterator[None]:
    """One of Beam's own servers, in a process of its own and in another folder than the job's."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (folder / f"{port}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, flag, str(port)],
            stdout=log, stderr=log, cwd=folder, env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
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


def test_what_goes_on_beside_a_pipeline_begins_before_beam_is_imported_and_ends_after_it(
    tmp_path: Path,
) -> None:
    code = """if True:
        import contextlib, sys
        from beam_jobs.runners import choosing, running

        @contextlib.contextmanager
        def beside():
            print("begins", "apache_beam" in sys.modules)
            yield
            print("ends")

        def build(pipeline):
            import apache_beam as beam
            pipeline | beam.Create([1]) | beam.Map(lambda _: print("runs"))

        choice = choosing.choose(None, [], images=1, remote=False, processes_from=9, pieces=1, each=1)
        running.run(build, choice, None, total=1, doing="x", folder=sys.argv[1], beside=beside())
    """
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["begins False", "runs", "ends"]


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


@pytest.mark.parametrize(
    ("shards", "least"),
    [("5", "MANY_IMAGES"), ("1", "MANY_IMAGES"), ("5", "MANY_BYTES")],
    ids=["many_shards", "fewer_shards_than_processes", "few_images_that_are_large"],
)
def test_processes_beside_beam_give_the_same_bytes(
    uneven: Archive, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: str, least: str
) -> None:
    flags = ["--num_shards", shards, "--max_bad_fraction", "0.5"]
    one = run(uneven, *flags, output=tmp_path / "one")
    monkeypatch.setattr(choosing, least, 1)
    other = run(uneven, *flags, "--direct_num_workers=2", output=tmp_path / "other")
    assert other.code == 0, other.err
    assert other.canopy["run"]["processes"] == 2
    assert other.shards == one.shards
    assert other.rejects == one.rejects
    assert {**other.canopy, "run": 0} == {**one.canopy, "run": 0}


def test_the_portable_runner_with_workers_elsewhere_gives_the_same_bytes_and_tells_of_every_image(
    uneven: Archive, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = run(uneven, *FLAGS, output=tmp_path / "one")
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(running, "POLL_SECONDS", 0.05)
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
    assert "0 of 82 images" in other.err
    assert "82 of 82 images" in other.err.splitlines()[-1]


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
        running.wait(run, 1, "converting")
    assert run.cancelled


@pytest.mark.parametrize("reports", [True, False])
def test_a_run_elsewhere_that_tells_no_number_yet_or_ever_is_waited_for_all_the_same(
    reports: bool, shown: list[Shown]
) -> None:
    class Run:
        def wait_until_finish(self) -> None:
            pass

        def metrics(self) -> Run:
            if not reports:
                raise NotImplementedError
            return self

        def query(self, _: object) -> dict[str, list[SimpleNamespace]]:
            return {
                "counters": [SimpleNamespace(attempted=attempted, committed=None) for attempted in (None, 3)]
            }

    running.wait(Run(), 4, "converting")
    assert shown == [("converting", 3 if reports else None, 4)]


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        ("UserError: labels.csv is gone [while running 'Convert']", UserError, "labels.csv is gone"),
        ("Traceback:\nbeam_jobs.stores.objects.UnavailableError: S3 fails\n", TryAgainError, "S3 fails"),
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
            "Pipeline job-1 failed in state FAILED: NoResourceAvailableException: Could not acquire\n slots",
            UserError,
            "the job ended on its runner as FAILED: NoResourceAvailableException: Could not acquire slots",
        ),
        (
            "Pipeline job-1 failed in state FAILED: Error received from SDK harness: Traceback\nTypeError: x",
            RuntimeError,  # a bug stays one
            "Pipeline job-1 failed in state FAILED: Error received from SDK harness: Traceback\nTypeError: x",
        ),
        (
            "Dataflow pipeline failed. State: CANCELLED, Error:\nNone",
            UserError,
            "the job was cancelled where its runner runs it",
        ),
        ("MemoryError [while running 'Convert']", MemoryError, ""),
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 2.60 EiB\n", MemoryError, ""),
        ("KeyboardInterrupt\n", KeyboardInterrupt, ""),  # of a worker that heard Ctrl-C first
        (
            "UserError: it is gone\n\nDuring handling of it:\n\ncanopy.cli.TryAgainError: the store fails\n",
            TryAgainError,
            "the store fails",
        ),
        (r"failed: 'canopy.cli.UserError: it is gone\n  more'", UserError, "it is gone"),
        (
            "Unable to fetch remote job server jar at https://there/a.jar: <urlopen error>",
            UserError,
            "Beam could not fetch this runner's job server from https://there/a.jar: name a running one with "
            "--job_endpoint",
        ),
    ],
)
def test_what_ended_a_run_elsewhere_comes_out_as_what_it_was(
    words: str, kind: type[BaseException], said: str
) -> None:
    with pytest.raises(kind) as raised, running.explained():
        raise RuntimeError(words)
    assert str(raised.value) == said


def test_a_job_server_that_goes_away_is_worth_another_try() -> None:
    import grpc
    from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

    jobs = beam_job_api_pb2_grpc.JobServiceStub(grpc.insecure_channel("localhost:1"))
    with pytest.raises(TryAgainError, match="the job server does not answer: "), running.explained():
        jobs.GetState(beam_job_api_pb2.GetJobStateRequest(job_id="job-1"))


@pytest.mark.parametrize("poll", [0.02, 60.0], ids=["meanwhile", "at_the_end"])
def test_numbers_that_workers_leave_are_added_up_and_shown(
    poll: float, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(running, "POLL_SECONDS", poll)
    with running.followed(partial(running.noted, str(tmp_path)), 100, "converting"):
        (tmp_path / "a").write_text("30")
        (tmp_path / "b").write_text("12")
        (tmp_path / "c").touch()  # a worker is just writing it anew
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert "42 of 100 images" in lines[-1]
    assert "images/s" in lines[-1]
    assert "s left" in lines[-1]
    assert running.noted(str(tmp_path / "gone")) == 0


def test_progress_does_not_go_back_while_a_number_is_written_anew(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(running, "POLL_SECONDS", 0.01)
    numbers = iter([3])
    with running.followed(lambda: next(numbers, 1), 4, "converting"):
        time.sleep(0.05)
    assert "3 of 4 images" in capsys.readouterr().err.splitlines()[-1]


def test_a_worker_that_still_leaves_numbers_hides_no_runs_end_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def work(folder: str) -> None:
        with contextlib.suppress(OSError):  # until the folder is gone
            for number in itertools.count():
                Path(folder, str(number)).write_text("1")

    for _ in range(20):  # mostly the second or third time is one at which a file comes in between
        with running.progress_folder() as folder:
            worker = threading.Thread(target=work, args=(folder,), daemon=True)
            worker.start()
            time.sleep(0.01)
        worker.join()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "flag", ["--direct_num_workers=1", "--direct_num_workers=2", "--runner=BundleBasedDirectRunner"]
)
def test_progress_is_told_to_the_last_image(
    flag: str, uneven: Archive, run: Run, shown: list[Shown], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "MANY_IMAGES", 1)
    done = run(uneven, *FLAGS, flag)
    assert done.code == 0, done.err
    assert shown == [("converting", 82, 82)]


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
