"""A training process that is told to end by a signal: when it does, by which code, and what it says."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from trainer import stopping

# A process as trainer.task makes it, which then does what the test says, and tells when it has come to it.
BEGUN = """
import signal, sys, threading, time
from trainer.link import Near
from trainer.stopping import Stopping
stopping = Stopping(Near(None))
stopping.begin()
def tell(word):
    print(word, flush=True)
exec(sys.argv[1])
"""


@pytest.fixture
def doing() -> Iterator[Any]:
    """Starts a process that does something, and waits until it has told its first word."""
    found: list[subprocess.Popen[bytes]] = []

    def start(what: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", BEGUN, what], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        found.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield start
    for each in found:
        each.kill()
        each.communicate()


BUSY = "tell('busy')\nwhile True: pass"
ASLEEP = "tell('asleep')\ntime.sleep(60)"
IN_A_CALLBACK = """
import ctypes
tell('there')
@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
def compare(one, other):
    time.sleep(60)  # an interrupt that is raised here is printed, and the process goes on
    return 0
ctypes.CDLL(None).qsort((ctypes.c_int * 2)(1, 2), 2, 4, compare)
"""


@pytest.mark.parametrize("what", [BUSY, ASLEEP, IN_A_CALLBACK])
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, b"interrupted\n"),
        (signal.SIGTERM, 143, b"stopped by SIGTERM: the newest checkpoint stands\n"),
    ],
)
def test_a_signal_ends_it_in_one_line_wherever_it_is(doing, what, number, code, said):
    process = doing(what)
    process.send_signal(number)
    _, words = process.communicate(timeout=20)
    assert (process.returncode, words) == (code, said)


def test_ctrl_c_does_not_wait_until_the_workers_agree(doing):
    process = doing(
        "with stopping.agreeing() as agree:\n    agree()\n    tell('in steps')\n    time.sleep(60)"
    )
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert time.monotonic() - began < stopping.AGREE_SECONDS / 2


def test_while_steps_are_taken_sigterm_only_asks(doing):
    process = doing(
        "with stopping.agreeing() as agree:\n    agree()\n    tell('in steps')\n"
        "    while not stopping.is_asked: time.sleep(0.01)\n    tell('saved')\n    raise SystemExit(7)"
    )
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (7, b"saved\n")


def test_a_checkpoint_that_is_being_written_is_finished_first(doing):
    process = doing(
        "with stopping.unbroken():\n    tell('saving')\n    time.sleep(2)\n    tell('saved')\nstop"
    )
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert out == b"saved\n"


def test_a_signal_from_before_it_began_is_not_lost():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)  # as a launcher does
    try:
        late = f"import time; time.sleep(1)\n{BEGUN}"
        process = subprocess.Popen([sys.executable, "-c", late, ASLEEP], stderr=subprocess.PIPE)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=20)
    assert (process.returncode, words) == (130, b"interrupted\n")
