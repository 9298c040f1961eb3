"""Ending training processes: those that answer are waited for, those that give no sign are not."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from trainer import link, worker

# Beats, and ends when told to: the far end's protocol, without TensorFlow behind it.
ANSWERS = """
import sys, threading, time
from trainer import link
near = link.Near(int(sys.argv[1]))
gone = threading.Event()
near.start(lambda kind, value: (time.sleep(float(sys.argv[2])), gone.set()), gone.set)
near.say(link.READY)
gone.wait()
"""


@pytest.fixture
def started() -> Iterator[Any]:
    """Starts a process that answers `seconds` after it was told, as `Worker` holds it."""
    found: list[SimpleNamespace] = []

    def start(seconds: float) -> SimpleNamespace:
        line = link.Far()
        process = subprocess.Popen(
            [sys.executable, "-c", ANSWERS, str(line.descriptor), str(seconds)], pass_fds=[line.descriptor]
        )
        line.start()
        found.append(SimpleNamespace(line=line, process=process))
        deadline = time.monotonic() + 60
        while not line.is_ready and time.monotonic() < deadline:
            time.sleep(0.01)
        assert line.is_ready
        return found[-1]

    yield start
    for each in found:
        each.process.kill()
        each.process.wait()
        each.line.close()


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
