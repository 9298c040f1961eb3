"""TensorFlow finds all of CUDA's libraries where they are Python packages."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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
