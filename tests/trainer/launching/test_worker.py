"""Ending training processes: those that answer are waited for, those that give no sign are not."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from canopy import machine
from tests.trainer.surviving import wait_for
from trainer.cluster import Place
from trainer.halt import Halt
from trainer.launching import supervise, worker


@pytest.fixture
def started(pretending: Callable[..., None]) -> Iterator[Callable[[float], worker.Worker]]:
    """Starts a worker that ends `seconds` after it was told that a peer is lost."""
    found: list[worker.Worker] = []

    def start(seconds: float) -> worker.Worker:
        pretending(f"near.say(link.READY)\nlost.wait()\ntime.sleep({seconds})")
        made = worker.Worker(Place(1, ()), [], here=1)
        found.append(made)
        wait_for(lambda: made.line.is_ready, seconds=60)
        return made

    yield start
    for each in found:
        each.process.kill()
        each.process.wait()
        each.close(show_errors=False)


def test_one_that_still_has_to_do_is_waited_for(started: Any) -> None:
    busy = started(1.5)
    worker.dismiss([busy], "a peer is gone", 30.0)
    assert busy.process.returncode == 0


def test_one_that_never_comes_to_an_end_is_killed(started: Any) -> None:
    stuck = started(60)
    worker.dismiss([stuck], "a peer is gone", 0.5)
    assert stuck.process.returncode == -signal.SIGKILL


def test_one_that_gives_no_sign_is_not_waited_for(started: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(worker, "STALLED_SECONDS", 2.0)
    silent, busy = started(0), started(0.5)
    silent.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    worker.dismiss([silent, busy], "a peer is gone", 60.0)
    assert time.monotonic() - began < 30.0
    assert silent.process.returncode == -signal.SIGKILL
    assert busy.process.returncode == 0


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
    monkeypatch.setattr(worker, "PAUSED_SECONDS", 1.0)
    began = time.monotonic()

    def pause_once_and_go_on_for_a_while() -> bool:
        if time.monotonic() < began + 1.0:
            supervised.process.send_signal(signal.SIGSTOP)
            time.sleep(4.0)  # the launcher's own loop
            supervised.process.send_signal(signal.SIGCONT)
        return time.monotonic() > began + 6.0

    assert supervise._wait([supervised], Halt(), pause_once_and_go_on_for_a_while) is None


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


def test_one_whose_last_word_was_tidied_away_with_old_temporary_files_left_none() -> None:
    made = worker.Worker(Place(0, ()), [], here=1)
    made.process.kill()
    made.process.wait()
    Path(made._word.name).unlink()
    assert made.word() == ""
    made.close(show_errors=False)


def environment_of(here: int, index: int = 0) -> dict[str, str]:
    """What a training process of a machine with so many workers is started with."""
    made = worker.Worker(Place(index, ()), ["--data", "none", "--model_dir", "none"], here)
    try:
        environ = Path(f"/proc/{made.process.pid}/environ")
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
