"""Programs of a few lines, run as commands are."""

import subprocess
import sys

from tests.conftest import ROOT


def python(program: str, **options) -> subprocess.Popen[bytes]:
    """Starts a program of a few lines that may call `cli`."""
    words = [sys.executable, "-c", f"import os, sys, time\nfrom canopy import cli\n{program}"]
    return subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, **options)
