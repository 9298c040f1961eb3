"""Programs of a few lines, run as commands are."""

import subprocess
import sys

from tests.conftest import ROOT


def words(program: str) -> list[str]:
    """The command line of a program of a few lines that may call `cli`."""
    return [sys.executable, "-c", f"import os, sys, time\nfrom canopy import cli\n{program}"]


def python(program: str, **options) -> subprocess.Popen[bytes]:
    """Starts such a program."""
    return subprocess.Popen(words(program), cwd=ROOT, stderr=subprocess.PIPE, **options)
