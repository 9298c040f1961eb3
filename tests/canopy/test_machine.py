"""How many cores there are for us, and what they can do."""

import os
import subprocess
import sys

import pytest

from canopy.machine import cores, gpus, multiplies_bfloat16
from tests.conftest import ROOT


@pytest.fixture
def many(monkeypatch):
    """A machine of 64 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


def system(root, groups: str, files: dict[str, str]):
    """Lays out a system's files: /proc/self/cgroup, and some under /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not pin processes")
def test_a_process_pinned_to_one_core_has_one():
    program = (
        "import os\nos.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from canopy.machine import cores\nprint(cores())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout == b"1\n"


def test_there_is_at_least_one_core_and_no_more_than_the_machine_has():
    assert 1 <= cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("limit", "wanted"),
    [("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), ("max 100000", 64), ("junk", 64)],
)
def test_a_containers_cpu_limit_counts_rounded_up(tmp_path, many, limit, wanted):
    assert cores(system(tmp_path, "0::/\n", {"cpu.max": f"{limit}\n"})) == wanted


def test_the_tightest_limit_of_the_groups_around_counts(tmp_path, many):
    files = {"pods/cpu.max": "300000 100000\n", "pods/one/cpu.max": "max 100000\n"}
    assert cores(system(tmp_path, "0::/pods/one\n", files)) == 3


def test_a_limit_in_the_older_kind_of_control_groups_counts(tmp_path, many):
    groups = "5:memory:/elsewhere\n4:cpu,cpuacct:/pod\n0::/\n"
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "400000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}
    assert cores(system(tmp_path, groups, files)) == 4


def test_no_limit_in_the_older_kind_is_minus_one(tmp_path, many):
    files = {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}
    assert cores(system(tmp_path, "1:cpu:/\n", files)) == 64


def test_a_system_without_control_groups_has_the_cores_it_says(tmp_path, many):
    assert cores(tmp_path) == 64


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 sha_ni", True),
        ("flags\t\t: fpu avx512f amx_bf16 amx_tile", True),
        ("Features\t: fp asimd bf16", True),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni", False),
        ("model name\t: avx512_bf16", False),
    ],
)
def test_bfloat16_is_there_where_the_system_names_it_among_the_cpus_features(tmp_path, line, expected):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor\t: 0\n{line}\n\nprocessor\t: 1\n")
    assert multiplies_bfloat16(tmp_path) is expected


def test_a_system_that_tells_nothing_of_its_cpu_has_no_bfloat16(tmp_path):
    assert not multiplies_bfloat16(tmp_path)


def test_gpus_are_counted_by_their_device_files(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus(tmp_path) == 0
    for name in ("nvidiactl", "nvidia-uvm", "nvidia3", "nvidia12"):
        (tmp_path / name).touch()
    assert gpus(tmp_path) == 2


@pytest.mark.parametrize(
    ("named", "usable"),
    [("", 0), ("-1", 0), ("1", 1), ("0, 1", 2), ("0, -1", 1), ("GPU-a,-1,GPU-b", 1), ("0,1,2,3", 2)],
)
def test_gpus_that_the_user_hides_do_not_count(tmp_path, monkeypatch, named, usable):
    for name in ("nvidia0", "nvidia1"):
        (tmp_path / name).touch()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpus(tmp_path) == usable
