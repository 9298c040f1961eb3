"""A training process that is told to end by a signal: when it does, by which code, and what it says."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from canopy import cli
from tests.trainer.surviving import is_running, wait_for
from trainer import link
from trainer.cluster import Place
from trainer.launching import supervise
from trainer.training import stopping

# A process as trainer.task makes it, which then does what the test says, and tells when it has come to it.
BEGUN = """
import os, signal, sys, threading, time
from trainer.link import Near
from trainer.training import stopping as module
stopping = module.Stopping(Near(None))
stopping.begin()
def tell(word):
    print(word, flush=True)
exec(sys.argv[1])
"""
LED = BEGUN.replace("Near(None)", "Near(int(sys.argv[2]))")  # the same with a launcher


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
        (signal.SIGINT, 130, b"stopped by SIGINT: the newest checkpoint stands\n"),
        (signal.SIGTERM, 143, b"stopped by SIGTERM: the newest checkpoint stands\n"),
    ],
)
def test_a_signal_ends_it_in_one_line_wherever_it_is(doing, what, number, code, said):
    process = doing(what)
    process.send_signal(number)
    _, words = process.communicate(timeout=20)
    assert (process.returncode, words) == (code, said)


AT_A_FIRST_STEP = "with stopping.agreeing():\n    tell('it is traced')\n    time.sleep(600)"
IN_STEPS = "with stopping.agreeing() as agree:\n    agree()\n    tell('in steps')\n    time.sleep(600)"
ASKED_IN_STEPS = (
    "with stopping.agreeing() as agree:\n    agree()\n    tell('in steps')\n"
    "    while not stopping.is_asked: time.sleep(0.01)\n    tell('asked')\n    time.sleep(600)"
)
AFTER_THE_LAST = "with stopping.agreeing() as agree:\n    agree()\ntell('after')\ntime.sleep(600)"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, cli.EXIT_TERMINATED), (signal.SIGINT, cli.EXIT_INTERRUPTED)]
)
@pytest.mark.parametrize("what", [AT_A_FIRST_STEP, AFTER_THE_LAST])
def test_where_no_step_is_lost_it_does_not_wait_until_the_workers_agree(doing, what, number, code):
    process = doing(f"module.AGREE_SECONDS = 600\n{what}")
    process.send_signal(number)
    assert process.wait(20) == code


@pytest.mark.parametrize(
    ("first", "code"), [(signal.SIGTERM, cli.EXIT_TERMINATED), (signal.SIGINT, cli.EXIT_INTERRUPTED)]
)
def test_ctrl_c_behind_another_signal_ends_it_without_waiting_for_the_workers(doing, first, code):
    process = doing(f"module.AGREE_SECONDS = 600\n{ASKED_IN_STEPS}")
    process.send_signal(first)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == code


SAVING = (
    "with stopping.agreeing() as agree:\n    agree()\n"
    "    with stopping.unbroken():\n        tell('saving')\n        time.sleep(600)"
)


@pytest.mark.parametrize(
    ("what", "number", "code"),
    [
        (IN_STEPS, signal.SIGTERM, 143),
        (IN_STEPS, signal.SIGINT, 130),
        (SAVING, signal.SIGTERM, 143),
        (SAVING, signal.SIGINT, 130),
    ],
)
def test_workers_that_do_not_agree_and_a_checkpoint_that_takes_too_long_are_given_up(
    doing, what, number, code
):
    process = doing(f"module.AGREE_SECONDS = module.SAVING_SECONDS = 0.2\n{what}")
    process.send_signal(number)
    assert process.wait(20) == code


ENDS_SLOWLY = """
ends = threading.Event()
def leave(code, line):
    ends.set()
    time.sleep(0.5)
    os._exit(code)
module.leave = leave
with stopping.agreeing() as agree:
    tell("it is traced")
    ends.wait()
    agree()
    tell("a step is begun")
"""


def test_no_step_is_begun_by_one_that_is_about_to_end(doing):
    process = doing(ENDS_SLOWLY)
    process.terminate()
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (143, b"")


def test_a_launcher_waits_for_as_long_as_its_worker_may_take_to_end():
    assert stopping.AGREE_SECONDS + stopping.SAVING_SECONDS <= supervise.STOP_SECONDS
    assert stopping.SAVING_SECONDS < supervise.DISMISS_SECONDS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_while_steps_are_taken_a_signal_only_asks(doing, number):
    process = doing(
        "with stopping.agreeing() as agree:\n    agree()\n    tell('in steps')\n"
        "    while not stopping.is_asked: time.sleep(0.01)\n    tell('saved')\n    raise SystemExit(7)"
    )
    process.send_signal(number)
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
    assert (process.returncode, words) == (130, b"stopped by SIGINT: the newest checkpoint stands\n")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, cli.EXIT_TERMINATED), (signal.SIGINT, cli.EXIT_INTERRUPTED)]
)
def test_that_a_signal_came_in_the_last_step_is_not_forgotten(doing, number, code):
    process = doing(
        "try:\n    with stopping.agreeing() as agree:\n        agree()\n        tell('in steps')\n"
        "        while not stopping.is_asked: time.sleep(0.01)\n"
        "except module.TerminatedError as error:\n    raise SystemExit(error.code)"
    )
    process.send_signal(number)
    assert process.wait(20) == code


def test_its_last_word_and_what_it_has_printed_are_not_lost(doing, tmp_path, monkeypatch):
    monkeypatch.setenv("CANOPY_TERMINATION_LOG", str(tmp_path / "word"))
    monkeypatch.setenv("PYTHONUNBUFFERED", "")
    process = doing("tell('there')\nprint('in the buffer')\ntime.sleep(60)")
    time.sleep(0.5)
    process.terminate()
    out, _ = process.communicate(timeout=20)
    assert out == b"in the buffer\n"
    assert (tmp_path / "word").read_text() == "stopped by SIGTERM: the newest checkpoint stands"


def test_it_ends_also_where_nobody_reads_what_it_says(doing, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", "")
    process = doing("tell('there')\nprint('in the buffer')\nos.write(2, b'it is\\n')\ntime.sleep(60)")
    process.stderr.readline()
    process.stdout.close()
    process.stderr.close()
    process.terminate()
    assert process.wait(20) == 143


def test_one_that_was_started_by_hand_waits_for_nobody_and_is_where_its_environment_says(doing, monkeypatch):
    place = Place(1, ("a:1", "b:1"))
    monkeypatch.setenv("TF_CONFIG", place.tf_config())
    process = doing("tell('begun')\nprint(stopping.meet(), file=sys.stderr)")
    assert process.communicate(timeout=20)[1].decode() == f"{place}\n"


@pytest.fixture
def led() -> Iterator[Any]:
    """Starts a process that has a launcher, whose end of the line comes with it."""
    found: list[tuple[subprocess.Popen[bytes], link.Far]] = []

    def start(what: str) -> tuple[subprocess.Popen[bytes], link.Far]:
        line = link.Far()
        process = subprocess.Popen(
            [sys.executable, "-c", LED, what, str(line.descriptor)],
            pass_fds=[line.descriptor],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        line.start()
        found.append((process, line))
        return found[-1]

    yield start
    for process, line in found:
        process.kill()
        process.communicate()
        line.close()


@pytest.mark.parametrize(
    ("act", "code", "said"),
    [
        (lambda _, line: line.close(), 75, b"peer lost: the launcher is gone\n"),
        (lambda _, line: line.say(link.LOST, "worker 1 ended"), 75, b"peer lost: worker 1 ended\n"),
        (lambda process, _: process.send_signal(signal.SIGINT), 130, b""),  # the launcher says it
    ],
)
def test_what_its_launcher_tells_it_or_would_tell_the_user_ends_it(led, act, code, said):
    process, line = led(ASLEEP)
    assert process.stdout.readline() == b"asleep\n"
    act(process, line)
    _, words = process.communicate(timeout=20)
    assert (process.returncode, words) == (code, said)


@pytest.mark.parametrize("place", [Place(0, ()), Place(0, ("a:1", "c:1"))])
def test_it_gets_the_cluster_that_its_launcher_names_and_not_one_of_its_environment(led, monkeypatch, place):
    monkeypatch.setenv("TF_CONFIG", Place(1, ("a:1", "b:1")).tf_config())
    process, line = led("tell(stopping.meet())\ntell(os.environ.get('TF_CONFIG'))")
    wait_for(lambda: line.is_ready, seconds=20)
    line.say(link.GO, place.tf_config())
    assert process.communicate(timeout=20)[0].decode() == f"{place}\n{place.tf_config() or None}\n"


def test_its_launcher_learns_when_to_be_patient_and_what_it_has_come_to(led):
    process, line = led(
        "with stopping.patience(600):\n    stopping.meet()\n"
        "stopping.stepped(3)\nstopping.saved(2)\nstopping.done()\ntell(stopping.has_stepped)"
    )
    wait_for(lambda: line.is_ready, seconds=20)
    assert line.silent_for() < -300
    line.say(link.GO)
    wait_for(lambda: line.is_done, seconds=20)
    assert line.silent_for() > -300
    assert (line.steps, line.saved) == (3, 2)
    assert process.communicate(timeout=20)[0] == b"True\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_frozen_process_does_not_outlive_its_launcher():
    launcher = (
        "import subprocess, sys\nfrom trainer import link\nline = link.Far()\n"
        "words = [sys.executable, '-c', sys.argv[1], sys.argv[2], str(line.descriptor)]\n"
        "process = subprocess.Popen(words, pass_fds=[line.descriptor], stdout=subprocess.PIPE)\n"
        "process.stdout.readline()\nprint(process.pid, flush=True)\nprocess.wait()"
    )
    words = [sys.executable, "-c", launcher, LED, ASLEEP]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(pid, signal.SIGSTOP)
        parent.kill()
    try:
        wait_for(lambda: not is_running(pid), seconds=20)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_one_that_was_started_by_hand_outlives_the_shell_that_did():
    what = "shell = os.getppid()\ntell('begun')\nwhile os.getppid() == shell: time.sleep(0.01)\ntell('alone')"
    shell = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    with subprocess.Popen([sys.executable, "-c", shell, BEGUN, what], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        assert process.stdout.read() == b"alone\n"
