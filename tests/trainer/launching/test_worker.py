"""Ending training processes: those that answer are waited for, those that give no sign are not."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from canopy import machine
from tests.trainer.surviving import wait_for
from trainer import logs
from trainer.cluster import Place
from trainer.launching import worker
from trainer.training import stopping


@pytest.fixture
def doing(pretending: Callable[..., None]) -> Iterator[Callable[..., worker.Worker]]:
    """Starts a worker that does what a program says, alone on its machine where nothing else is said."""
    found: list[worker.Worker] = []

    def start(program: str, *, index: int = 1, here: int = 1, log_format: str = "text") -> worker.Worker:
        pretending(program)
        found.append(worker.Worker(Place(index, ()), [], here, log_format=log_format))
        return found[-1]

    yield start
    for each in found:
        each.process.kill()
        each.process.wait()
        each.close(show_errors=False)


@pytest.fixture
def started(doing: Any) -> Callable[[float], worker.Worker]:
    """Starts a worker that ends `seconds` after it was told that a peer is lost, or got a SIGTERM."""
    obeys = "(signal.sigwait([signal.SIGTERM]), lost.set())"
    hears = f"threading.Thread(target=lambda: {obeys}, daemon=True).start()"

    def start(seconds: float) -> worker.Worker:
        made: worker.Worker = doing(f"{hears}\nnear.say(link.READY)\nlost.wait()\ntime.sleep({seconds})")
        wait_for(lambda: made.line.is_ready, seconds=60)
        return made

    return start


def stop(workers: list[worker.Worker], seconds: float) -> None:
    worker.stop(workers, seconds)


def dismiss(workers: list[worker.Worker], seconds: float) -> None:
    worker.dismiss(workers, "a peer is gone", seconds)


@pytest.mark.parametrize("end", [stop, dismiss])
def test_one_that_still_has_to_do_is_waited_for(started: Any, end: Any) -> None:
    busy = started(0.5)
    end([busy], 30.0)
    assert busy.process.returncode == 0


@pytest.mark.parametrize("end", [stop, dismiss])
def test_one_that_never_comes_to_an_end_is_killed(started: Any, end: Any) -> None:
    stuck = started(60)
    end([stuck], 0.5)
    assert stuck.process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("end", [stop, dismiss])
def test_one_that_gives_no_sign_is_not_waited_for(started: Any, end: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(worker, "STALLED_SECONDS" if end is dismiss else "FROZEN_SECONDS", 2.0)
    silent, busy = started(0), started(0.5)
    silent.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    end([silent, busy], 60.0)
    assert time.monotonic() - began < 20.0  # and not FROZEN_SECONDS either
    assert silent.process.returncode == -signal.SIGKILL
    assert busy.process.returncode == 0


RUNS_AND_IS_SILENT = "near._saying.acquire()\ntime.sleep(60)"


def test_one_that_loads_may_be_silent_for_longer_than_one_that_is_ready(doing: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(worker, "FROZEN_SECONDS", 0.5)
    loads = doing(RUNS_AND_IS_SILENT)
    wait_for(lambda: loads.line.silent_for() > 0.5, seconds=60)
    assert not loads.seems_frozen()
    monkeypatch.setattr(worker, "START_SECONDS", 0.5)
    wait_for(loads.seems_frozen, seconds=60)
    monkeypatch.setattr(worker, "START_SECONDS", 600.0)
    ready = doing(f"near.say(link.READY)\n{RUNS_AND_IS_SILENT}")
    wait_for(ready.seems_frozen, seconds=60)
    ready.process.kill()
    ready.process.wait()
    assert not ready.seems_frozen()  # it has ended, and how it did says why


@pytest.fixture
def supervised(started: Any, monkeypatch: Any) -> worker.Worker:
    """A process that beats, and counts as frozen after two seconds."""
    monkeypatch.setattr(worker, "FROZEN_SECONDS", 2.0)
    made: worker.Worker = started(60)
    assert not made.seems_frozen()
    return made


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system does not tell who is stopped")
def test_one_that_is_stopped_is_frozen_however_much_patience_it_asked_for(supervised: worker.Worker) -> None:
    supervised.line._patience = 600.0
    supervised.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert not supervised.seems_frozen()
    while not supervised.seems_frozen() and time.monotonic() < began + 30:
        time.sleep(0.02)
    assert 1.5 < time.monotonic() - began < 30  # it may have been stopped before it was looked at
    supervised.process.send_signal(signal.SIGCONT)
    time.sleep(0.2)
    assert not supervised.seems_frozen()


def test_one_that_was_paused_together_with_its_launcher_is_not_frozen(
    supervised: worker.Worker, monkeypatch: Any
) -> None:
    for limit in ("PAUSED_SECONDS", "FROZEN_SECONDS"):
        monkeypatch.setattr(worker, limit, 1.0)
    supervised.process.send_signal(signal.SIGSTOP)
    time.sleep(1.2)  # nobody looks
    for _ in range(2):  # it takes a moment until it goes on
        assert not supervised.seems_frozen()
    wait_for(supervised.seems_frozen, seconds=30)  # it does not


def test_one_that_is_hushed_has_only_its_errors_passed_on(
    tmp_path: Path, monkeypatch: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    go_on = tmp_path / "go-on"
    (tmp_path / "sitecustomize.py").write_text(
        "import os, time\n"
        "os.write(2, b'it works\\n')\n"
        f"while not os.path.exists({str(go_on)!r}): time.sleep(0.01)\n"
        "os.write(2, b'a peer is gone\\nerror: so it is\\n')\n"
        "os._exit(0)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    made = worker.Worker(Place(1, ()), [], here=2)
    told, deadline = "", time.monotonic() + 30
    while not told and time.monotonic() < deadline:
        told += capfd.readouterr().err
    made.hush()
    go_on.touch()
    made.process.wait(30)
    made.close(show_errors=True)
    assert told + capfd.readouterr().err == "it works\nerror: so it is\n"


def test_in_a_json_log_what_one_writes_is_json_whatever_it_is_and_its_errors_are_plain(
    doing: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    own = logs.as_json("its own", 3)
    written = f"a library's\n\n \n{own}\n".encode() + b"no UTF-8: \xff\nerror: why\n"
    made = doing(f"os.write(2, {written!r})", index=3, log_format="json")
    made.process.wait(60)
    made.close(show_errors=False)  # it is alone on its machine: nobody else can have said it
    *told, last = capfd.readouterr().err.splitlines()
    found = [(each["worker"], each["message"]) for each in map(json.loads, told)]
    assert found == [(3, "a library's"), (3, "its own"), (3, "no UTF-8: \N{REPLACEMENT CHARACTER}")]
    assert last == "error: why"


WRITES_MUCH = "os.write(2, b'.\\n' * 65536)"  # more than a pipe holds


def test_all_that_one_has_written_before_its_end_is_passed_on(
    doing: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    made = doing(WRITES_MUCH, here=2)
    made.process.wait(60)
    made.close(show_errors=False)
    assert len(capfd.readouterr().err) == 2 * 65536


def test_a_child_of_one_that_has_ended_holds_up_nobody(doing: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(worker, "RELAY_SECONDS", 0.2)
    made = doing("if not os.fork():\n    os.execvp('sleep', ['sleep', '10'])", here=2)
    made.process.wait(60)
    began = time.monotonic()
    made.close(show_errors=False)
    assert time.monotonic() - began < 5


def test_one_is_not_held_up_where_nobody_reads_what_it_writes(doing: Any, monkeypatch: Any) -> None:
    read, write = os.pipe()
    os.close(read)
    with io.TextIOWrapper(io.FileIO(write, "w"), write_through=True) as stderr:  # and keeps nothing
        monkeypatch.setattr(sys, "stderr", stderr)
        made = doing(WRITES_MUCH, here=2)
        assert made.process.wait(30) == 0
        made.close(show_errors=False)


def test_a_last_word_needs_no_file_that_a_killed_launcher_would_leave(
    doing: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    made = doing("cli.leave_word('its word')")
    assert made.process.wait(30) == 0
    assert made.word() == made.word() == "its word"
    assert not list(folder.iterdir())


def test_a_launcher_that_has_started_one_still_hears_signals(doing: Any) -> None:
    doing("time.sleep(60)")
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & stopping.SIGNALS


def environment_of(here: int, index: int = 0, **environment: str) -> dict[str, str]:
    """What a training process of a machine with so many workers is started with."""
    made = worker.Worker(Place(index, ()), ["--data", "none", "--model_dir", "none"], here, environment)
    try:
        environ = Path(f"/proc/{made.process.pid}/environ")
        if not environ.exists():
            pytest.skip("this system does not tell a process' environment")
        text = wait_for(environ.read_text)  # empty until the program is loaded
        return dict(line.split("=", 1) for line in text.split("\0") if line)
    finally:
        made.process.kill()
        made.process.wait()
        made.close(show_errors=False)


@pytest.mark.parametrize(("cores", "here", "threads"), [(8, 1, "8"), (8, 2, "4"), (1, 2, "1")])
def test_a_training_process_takes_its_share_of_the_cores_that_the_container_may_use(
    cores: int, here: int, threads: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: cores)
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    found = environment_of(here)
    assert (found["TF_NUM_INTRAOP_THREADS"], found["OMP_NUM_THREADS"]) == (threads, threads)


def test_what_the_user_has_set_for_tensorflow_stays(monkeypatch: Any) -> None:
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    assert environment_of(2)["TF_NUM_INTRAOP_THREADS"] == "3"


def test_what_is_the_launchers_own_is_not_left_to_its_worker(monkeypatch: Any) -> None:
    for name in ("CANOPY_RUN_ID", "CANOPY_TERMINATION_LOG", "TF_CONFIG"):
        monkeypatch.setenv(name, "the launcher's")
    found = environment_of(1, CANOPY_RUN_ID="the run's")
    assert found["CANOPY_RUN_ID"] == "the run's"
    assert found["CANOPY_TERMINATION_LOG"] != "the launcher's"
    assert found["TF_CONFIG"] == ""


@pytest.mark.parametrize(
    ("gpus", "named", "here", "expected"),
    [
        (4, None, 2, ["0,1", "2,3"]),
        (3, None, 2, ["0", "1"]),  # as many replicas on each
        (2, None, 3, ["0", "1", "0"]),
        (8, "GPU-a,GPU-b", 2, ["GPU-a", "GPU-b"]),
        (1, None, 2, [None, None]),
        (0, None, 2, [None, None]),
        (4, None, 1, [None]),
        (4, "", 2, ["", ""]),
    ],
)
def test_workers_of_one_machine_share_its_gpus_out(
    gpus: int, named: str | None, here: int, expected: list[str | None], monkeypatch: Any
) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    found = [environment_of(here, index).get("CUDA_VISIBLE_DEVICES") for index in range(here)]
    assert found == expected
