"""TensorFlow finds all of CUDA's libraries where they are Python packages."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from canopy import cuda
from tests.conftest import ROOT

INSTALLED = "from canopy import cuda; print(cuda.is_installed())"
LOOKS = """
from canopy import quiet
with quiet.importing():
    print(sum("libcusolver.so.11" in line for line in open("/proc/self/maps")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="CUDA's packages are Linux's")
def test_cusolver_is_loaded_before_tensorflow_looks_for_it_where_it_cannot_find_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    library = tmp_path / "nvidia/cusolver/lib/libcusolver.so.11"

    def mapped():
        done = subprocess.run([sys.executable, "-c", LOOKS], capture_output=True, text=True, check=True)
        assert not done.stderr
        return int(done.stdout)

    assert not mapped()
    library.parent.mkdir(parents=True)
    shutil.copy(np.random._pcg64.__file__, library)  # any library will do
    assert mapped()
    library.write_text("no library")
    assert not mapped()


@pytest.mark.skipif(sys.platform != "linux", reason="CUDA's packages are Linux's")
def test_the_libraries_are_there_as_python_packages_or_the_systems(tmp_path, monkeypatch):
    packages, systems = (tmp_path / "packages/nvidia/cudnn/lib", tmp_path / "systems")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'packages'}:{ROOT}")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(systems))

    def installed():
        done = subprocess.run([sys.executable, "-c", INSTALLED], capture_output=True, text=True, check=True)
        return done.stdout == "True\n"

    assert not installed()
    for folder in (packages, systems):
        folder.mkdir(parents=True)
        library = shutil.copy(np.random._pcg64.__file__, folder / "libcudnn.so.9")  # any library will do
        assert installed()
        Path(library).unlink()
    assert not installed()


COPYING = (
    "Failed copying input tensor from /job:localhost/replica:0/task:0/device:CPU:0 to "
    "/job:localhost/replica:0/task:0/device:GPU:0 in order to run _EagerConst: Dst tensor is not initialized."
)
BUSY = "cudaSetDevice() on GPU:0 failed. Status: CUDA-capable device(s) is/are busy or unavailable"
TRIED = "No algorithm worked!  Error messages:\n  Profiling failure on CUDNN engine 1: "


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (COPYING, "memory"),
        ("cudaSetDevice() on GPU:0 failed. Status: out of memory", "memory"),
        (f"{TRIED}RESOURCE_EXHAUSTED: Allocating 9 bytes exceeds the limit", "memory"),
        (BUSY, "failed"),
        ("CUDA_ERROR_ECC_UNCORRECTABLE: uncorrectable ECC error encountered", "failed"),
        ("No DNN support for stream.", "unfit"),
        ("DNN library is not found.", "unfit"),
        ("No BLAS support in stream.", "unfit"),
        (f"{TRIED}UNIMPLEMENTED: no engine", "unfit"),
        ("Could not find compiler for platform CUDA: NOT_FOUND", ""),
        ("/data/CUDA/archive.tfrecord; No such file or directory", ""),
    ],
)
def test_what_tensorflow_says_of_a_gpu_is_understood(said, meant):
    ways = {"memory": cuda.lacks_memory, "failed": cuda.has_failed, "unfit": cuda.is_unfit}
    assert next((name for name, holds in ways.items() if holds(Exception(said))), "") == meant
