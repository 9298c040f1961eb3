"""Imports large libraries without their start-up chatter, and in about two thirds of the time.

Promises: what a library says of trouble still comes through, and a failing import shows all it wrote;
collecting garbage goes on afterwards as it was before; processes of one run call each other, and no proxy.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator

from canopy import cuda

# absl writes these before its log level can be set: information, and a notice about the notice.
# TensorFlow Lite has no log level at all in Python, and announces its XNNPACK delegate.
_NOISE = re.compile(
    rb"^(I\d{4} |INFO: Created TensorFlow Lite |WARNING: All log messages before absl::InitializeLog)"
)
_HOLDING = threading.RLock()  # a process has one file descriptor 2, and workers may be its threads


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Wraps the first import of TensorFlow or Beam.

    Their C++ parts write to file descriptor 2 itself, so that is what is held back, and given out less the
    noise when the import is done.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    prepare_grpc()
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # TensorFlow Hub's layer is one of tf_keras
    # Else the first process on a GPU takes nearly all of its memory: another worker would find none, and
    # neither would a run that needs more while a report is made beside it.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    cuda.load_left_out()
    if not _HOLDING.acquire(blocking=False):  # waiting could deadlock with Python's own lock on imports
        yield
        return
    try:
        with _held_back(), uncollected():
            yield
    finally:
        _HOLDING.release()


def prepare_grpc() -> None:
    """Sets what gRPC reads from the environment, where the user has not; call before it is imported.

    Workers of a run call each other by it, and so do Beam's processes. It would ask the proxy of `http_proxy`
    or `https_proxy` for the way to them, which seldom knows it, and a run would wait for ever.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("grpc_proxy", "")  # asked for first; set and empty, it is none


def prepare_beam() -> None:
    """Keeps Beam's start-up chatter, and gRPC's, off the screen; call before either is imported."""
    prepare_grpc()
    logging.getLogger("apache_beam").setLevel(logging.ERROR)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Wraps an import of thousands of modules.

    Nearly all that it makes stays to the end: to search that for garbage, dozens of times as it grows, takes
    about a third of Beam's two seconds and of TensorFlow's four, and some more when Python ends.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    sys.stderr.flush()
    real = os.dup(2)
    failed = False
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            failed = True
            raise
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            held.seek(0)
            # Not sys.stderr: a notebook's is another place, and this was written to the descriptor.
            with open(2, "wb", closefd=False) as screen:
                screen.writelines(line for line in held if failed or not _NOISE.match(line))
