"""Programs of a few lines, run as commands are."""

import os
import pty
import subprocess
import sys

from tests.conftest import ROOT


def words(program: str) -> list[str]:
    """The command line of a program of a few lines that may call `cli`."""
    return [sys.executable, "-c", f"import os, sys, time\nfrom canopy import cli\n{program}"]


def python(program: str, **options) -> subprocess.Popen[bytes]:
    """Starts such a program."""
    return subprocess.Popen(words(program), cwd=ROOT, stderr=subprocess.PIPE, **options)


def on_a_terminal(program: str, kind: str) -> tuple[str, str]:
    """What such a program writes to a terminal of that kind (stderr), and to stdout, which is a pipe."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": kind, "COLUMNS": "100"}
    process = subprocess.Popen(
        words(program), cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # the terminal's last writer went away
        pass
    finally:
        os.close(ours)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, shown
    return shown.decode(), out.decode()
