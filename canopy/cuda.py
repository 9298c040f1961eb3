"""CUDA's libraries, with which TensorFlow computes on a GPU: whether they are there, and one that it misses.

Promises: without its Python packages nothing is loaded but what the system has; a library that cannot be
loaded is left to TensorFlow, which says so. What TensorFlow says of a GPU is understood by its words: it
raises one exception for much.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

# TensorFlow 2.21 looks for NVIDIA's packages in the folders of a path within its own library (RUNPATH of
# libtensorflow_framework.so.2), and this one is missing there. If one library is not found, it uses no GPU.
LEFT_OUT = "cusolver/lib/libcusolver.so.11"
CUDNN = "libcudnn.so.9"  # nothing else on a machine brings it but those who want to compute with it
_EXHAUSTED = 8  # of TensorFlow's ResourceExhaustedError: RESOURCE_EXHAUSTED, error_codes.proto
# What is copied to a GPU without room for it has no place to go to (gpu_util.cc: PrepareCopy); the others are
# words of CUDA, of its libraries, and of XLA's allocator, within what TensorFlow calls an internal error.
_NO_MEMORY = re.compile(
    r"Dst tensor is not initialized|\bout of memory\b|STATUS_ALLOC_FAILED|RESOURCE_EXHAUSTED", re.IGNORECASE
)
# The driver's errors, and TensorFlow's where it cannot open a GPU: another process may have it to itself.
_FAILED = re.compile(r"CUDA_ERROR_[A-Z]|cudaSetDevice")
# cuDNN or cuBLAS cannot be opened, or computes nothing.
_UNFIT = re.compile(
    r"\bDNN (library|support)|\bBLAS support|C(UDNN|UBLAS)_STATUS_|cuDNN launch failure|No algorithm worked"
)


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


def lacks_memory(error: Exception) -> bool:
    """Whether an error means that a GPU or the machine has no memory left, by its code or its words."""
    return getattr(error, "error_code", None) == _EXHAUSTED or bool(_NO_MEMORY.search(str(error)))


def has_failed(error: Exception) -> bool:
    """Whether an error's words mean that a GPU cannot be had: broken, or another process'."""
    return bool(_FAILED.search(str(error)))


def is_unfit(error: Exception) -> bool:
    """Whether an error's words mean that cuDNN or cuBLAS does not work here."""
    return bool(_UNFIT.search(str(error)))


def _folders() -> Iterator[str]:
    """Where NVIDIA's Python packages are."""
    found = importlib.util.find_spec("nvidia")
    yield from (found and found.submodule_search_locations) or ()
