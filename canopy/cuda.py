"""CUDA's libraries, with which TensorFlow computes on a GPU: whether they are there, and one that it misses.

Promises: without its Python packages nothing is loaded but what the system has; a library that cannot be
loaded is left to TensorFlow, which says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
from collections.abc import Iterator
from pathlib import Path

# TensorFlow 2.21 looks for NVIDIA's packages in the folders of a path within its own library (RUNPATH of
# libtensorflow_framework.so.2), and this one is missing there. If one library is not found, it uses no GPU.
LEFT_OUT = "cusolver/lib/libcusolver.so.11"
CUDNN = "libcudnn.so.9"  # nothing else on a machine brings it but those who want to compute with it


def is_installed() -> bool:
    """Whether there are libraries for a GPU, as Python packages or the system's; costs no import.

    Without them TensorFlow finds none, however many there are.
    """
    if any(Path(folder, "cudnn/lib", CUDNN).is_file() for folder in _folders()):
        return True
    try:
        ctypes.CDLL(CUDNN)
    except OSError:
        return False
    return True


def load_left_out() -> None:
    """Loads what TensorFlow would miss: a library that is loaded already is found by its name.

    Call before TensorFlow looks for GPUs.
    """
    for folder in _folders():
        path = Path(folder, LEFT_OUT)
        if path.is_file():
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(path))


def _folders() -> Iterator[str]:
    """Where NVIDIA's Python packages are."""
    found = importlib.util.find_spec("nvidia")
    yield from (found and found.submodule_search_locations) or ()
