"""Training processes that do what a test says, without TensorFlow behind them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Speaks to the launcher as trainer.task does. `told` is what it was told last: its cluster, or who is lost.
PRETENDS = """
import os, signal, sys, threading, time
if "trainer.task" in " ".join(sys.orig_argv):
    from canopy import cli
    from trainer import cluster, link

    index = cluster.from_tf_config(os.environ).index
    near, go, lost, told = link.from_environment(), threading.Event(), threading.Event(), [""]

    def heard(kind, value):
        told[0] = value
        {link.GO: go, link.LOST: lost}[kind].set()

    def end(code):
        os._exit(code)

    def write(text):
        os.write(2, text.encode())

    def until(condition):
        while not condition():
            time.sleep(0.01)

    near.start(heard, lambda: end(cli.EXIT_PEER_LOST))
    exec(WORKERS[index])
    end(0)
"""
MEETS = "near.say(link.READY)\ngo.wait()\n"


@pytest.fixture
def pretending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes training processes do this instead of training: one program for each worker."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.setenv("CANOPY_READY_FILE", str(tmp_path / "ready"))

    def pretend(*workers: str) -> None:
        (tmp_path / "sitecustomize.py").write_text(f"WORKERS = {workers!r}\n{PRETENDS}")

    return pretend
