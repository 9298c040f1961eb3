"""How commands end by a signal: tidied up, with its code and a word, and waiting for nobody."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from canopy import cli
from tests.canopy.programs import python, words
from tests.conftest import ROOT

TIDIES_UP = (
    "def command():\n"
    "    try:\n"
    "        print('begun', flush=True)\n"
    # Not one long sleep: a signal that comes just before it begins would only be seen at its end.
    "        for _ in range(600): time.sleep(0.1)\n"
    "    finally:\n"
    "        time.sleep(0.5)\n"
    "        print('tidy', flush=True)\n"
    "sys.exit(cli.run(command))"
)


@pytest.mark.parametrize("times", [1, 2])
def test_sigterm_lets_a_command_tidy_up_and_ends_it_with_143_and_a_word(times):
    with python(TIDIES_UP, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"begun\n"
        for _ in range(times):
            process.terminate()
            time.sleep(0.1)
        out, said = process.communicate(timeout=30)
    assert (process.returncode, out, said) == (143, b"tidy\n", b"stopped by SIGTERM\n")


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, b"interrupted"), (signal.SIGTERM, 143, b"stopped by SIGTERM")],
)
def test_a_thread_that_never_ends_does_not_keep_an_interrupted_command(number, code, word, tmp_path):
    program = (
        "import atexit, tempfile, threading\n"
        "atexit.register(print, 'at exit')\n"
        "kept = tempfile.TemporaryDirectory()\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        f"{TIDIES_UP}"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": ""}
    with python(program, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout
        assert process.stdout.readline() == b"begun\n"
        assert list(tmp_path.iterdir())
        process.send_signal(number)
        out, said = process.communicate(timeout=30)
    assert (process.returncode, out, said) == (code, b"tidy\nat exit\n", word + b"\n")
    assert list(tmp_path.iterdir()) == []


def test_threads_that_end_by_themselves_are_waited_for():
    program = (
        "import threading\n"
        "def slow():\n"
        "    time.sleep(1.5)\n"
        "    print('the last word', flush=True)\n"
        "def command():\n"
        "    threading.Thread(target=slow).start()\n"
        "    raise KeyboardInterrupt\n"
        "sys.exit(cli.run(command))"
    )
    begun = time.monotonic()
    process = python(program, stdout=subprocess.PIPE)
    out, said = process.communicate(timeout=30)
    assert (process.returncode, out, said) == (130, b"the last word\n", b"interrupted\n")
    assert time.monotonic() - begun < 1.5 + cli.THREADS_SECONDS


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="only root may make namespaces")
def test_sigterm_ends_a_containers_first_process_too():
    """The kernel keeps it from the first process of a namespace that has no handler for it."""
    command = ["unshare", "--pid", "--fork", "--kill-child", *words(TIDIES_UP)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"begun\n"
        first = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        os.kill(int(first), signal.SIGTERM)
        out, said = process.communicate(timeout=30)
    assert (process.returncode, out, said) == (143, b"tidy\n", b"stopped by SIGTERM\n")


def test_a_fork_ends_by_sigterm_as_any_process_does():
    process = python(
        "def command():\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        time.sleep(60)\n"
        "    time.sleep(0.5)\n"  # Python drops what comes while it forks
        "    os.kill(child, 15)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "sys.exit(cli.run(command))",
        stdout=subprocess.PIPE,
    )
    out, said = process.communicate(timeout=30)
    assert (process.returncode, out, said) == (0, b"-15\n", b"")


def test_a_command_may_run_on_any_thread_and_leaves_sigterm_as_it_was(capsys):
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(cli.run(lambda: None)))
    thread.start()
    thread.join()
    assert [*codes, cli.run(lambda: None)] == [0, 0]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_somebody_else_does_with_sigterm_stays():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert cli.run(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 0
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_interrupt_within_code_from_a_string_ends_a_module_with_its_code(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(
        "import sys\n"
        "from canopy import cli\n"
        "def command():\n"
        "    exec('import signal; signal.raise_signal(signal.SIGINT)')\n"
        "sys.exit(cli.run(command))\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "interrupted"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (cli.EXIT_INTERRUPTED, "interrupted\n")
