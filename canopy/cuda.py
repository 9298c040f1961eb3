"""CUDA's libraries where they are Python packages: what TensorFlow does not find of them by itself.

Promises: without these packages nothing is done; a library that cannot be loaded is left to TensorFlow, which
says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
from pathlib import Path

# TensorFlow 2.21 looks for NVIDIA's packages by a path within its own library (RUNPATH of
# libtensorflow_framework.so.2), and this folder is not in it. It opens all that it wants or uses no GPU.
LEFT_OUT = "cusolver/lib/libcusolver.so.11"


def load_left_out() -> None:
    """Loads what TensorFlow would miss: what is loaded already is found by its name alone.

    Call before TensorFlow looks for GPUs.
    """
    found = importlib.util.find_spec("nvidia")
    for folder in (found and found.submodule_search_locations) or ():
        path = Path(folder, LEFT_OUT)
        if path.is_file():
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(path))
