"""The library that TensorFlow does not find by itself where CUDA comes as Python packages.

Promises: without these packages nothing is done; a library that cannot be loaded is left to TensorFlow, which
says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
from pathlib import Path

# TensorFlow 2.21 looks for NVIDIA's packages in the folders of a path within its own library (RUNPATH of
# libtensorflow_framework.so.2), and this one is missing there. If one library is not found, it uses no GPU.
LEFT_OUT = "cusolver/lib/libcusolver.so.11"


def load_left_out() -> None:
    """Loads what TensorFlow would miss: a library that is loaded already is found by its name.

    Call before TensorFlow looks for GPUs.
    """
    found = importlib.util.find_spec("nvidia")
    for folder in (found and found.submodule_search_locations) or ():
        path = Path(folder, LEFT_OUT)
        if path.is_file():
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(path))
