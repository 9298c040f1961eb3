"""How many cores there are for us, and what they can do."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from canopy.machine import cores, gpus, kills_for_memory, memory, multiplies_bfloat16
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
    [
        ("200000 100000", 2), ("110000 100000", 2), ("10000 100000", 1), ("0 100000", 1),
        ("max 100000", 64), ("junk", 64),
    ],
)  # fmt: skip
def test_a_containers_cpu_limit_counts_rounded_up(tmp_path, many, limit, wanted):
    assert cores(system(tmp_path, "0::/\n", {"cpu.max": f"{limit}\n"})) == wanted


def test_the_tightest_limit_of_the_groups_around_counts(tmp_path, many):
    files = {"pods/cpu.max": "300000 100000\n", "pods/cri:one/cpu.max": "max 100000\n"}
    assert cores(system(tmp_path, "0::/pods/cri:one\n", files)) == 3


def test_a_limit_in_the_older_kind_of_control_groups_counts(tmp_path, many):
    groups = "5:memory:/elsewhere\n4:cpu,cpuacct:/pod\n0::/\n"
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "400000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}
    assert cores(system(tmp_path, groups, files)) == 4


def test_no_limit_in_the_older_kind_is_minus_one(tmp_path, many):
    files = {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}
    assert cores(system(tmp_path, "1:cpu:/\n", files)) == 64


def test_a_system_without_control_groups_has_the_cores_it_says(tmp_path, many):
    assert cores(tmp_path) == 64


@pytest.mark.parametrize(("there", "wanted"), [(6, 6), (None, 1)])
def test_where_no_process_is_pinned_the_machines_cores_count(tmp_path, monkeypatch, there, wanted):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: there)
    assert cores(tmp_path) == wanted


MEMINFO = "MemTotal:       16000000 kB\nMemFree: 5 kB\nSwapTotal:  {swap} kB\nHugePages_Total:  0\n"


def with_memory(root, groups: str, files: dict[str, str], swap: int = 0):
    root = system(root, groups, files)
    (root / "proc/meminfo").write_text(MEMINFO.format(swap=swap))
    return root


@pytest.mark.parametrize(
    ("groups", "files", "wanted"),
    [
        ("0::/\n", {}, 16_384_000_000),
        ("0::/\n", {"memory.max": "2000000000\n"}, 2_000_000_000),
        ("0::/\n", {"memory.max": "max\n"}, 16_384_000_000),
        ("0::/\n", {"memory.max": "99000000000\n"}, 16_384_000_000),
        ("0::/pods/one\n", {"pods/one/memory.max": "max\n", "pods/memory.max": "3000\n"}, 3_000),
        ("4:memory:/pod\n0::/\n", {"memory/pod/memory.limit_in_bytes": "4000\n"}, 4_000),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 16_384_000_000),
    ],
)
def test_the_memory_is_the_machines_or_what_a_container_is_limited_to(tmp_path, groups, files, wanted):
    assert memory(with_memory(tmp_path, groups, files)) == wanted


@pytest.mark.parametrize("files", [{}, {"memory.max": "16384000000\n"}])
def test_swap_counts_as_memory(tmp_path, files):
    assert memory(with_memory(tmp_path, "0::/\n", files, swap=1_000_000)) == 17_408_000_000


@pytest.mark.parametrize("text", [None, "", "MemTotal: many kB\n", "SwapTotal: 5 kB\n"])
def test_a_system_that_does_not_tell_of_its_memory_has_no_end_of_it(tmp_path, text):
    system(tmp_path, "0::/\n", {})
    if text is not None:
        (tmp_path / "proc/meminfo").write_text(text)
    assert memory(tmp_path) == math.inf


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_this_machine_has_more_memory_than_this_process_takes():
    assert 10**8 < memory() < 10**15


@pytest.mark.parametrize(
    ("groups", "name"),
    [
        ("0::/pods/one\n", "pods/one/memory.events"),
        ("0::/pods/one\n", "pods/memory.events"),  # the group itself has no memory controller
        ("0::/on/the/host\n", "memory.events"),  # in a container
        ("5:cpu:/a\n4:memory:/pod\n0::/\n", "memory/pod/memory.oom_control"),
    ],
)
def test_kills_for_want_of_memory_are_those_of_the_group_around(tmp_path, groups, name):
    text = "oom_kill_disable 0\noom 9\noom_kill 3\noom_group_kill 1\n"
    assert kills_for_memory(system(tmp_path, groups, {name: text})) == 3


@pytest.mark.parametrize("text", ["oom_kill_disable 0\nunder_oom 0\n", "oom_kill many\n", ""])
def test_a_system_that_does_not_count_kills_has_none(tmp_path, text):
    assert kills_for_memory(tmp_path) == 0
    assert kills_for_memory(system(tmp_path, "0::/\n", {"memory.events": text})) == 0


@pytest.fixture
def small_group():
    """A real control group of 64 MiB around processes that join it: the folder."""
    rows = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    own = next((path for _, controllers, path in rows if "memory" in controllers.split(",")), "")
    folder = Path(f"/sys/fs/cgroup/memory{own}/canopy-test-{os.getpid()}")
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(64 << 20))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield folder
    folder.rmdir()


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux'")
def test_a_process_that_takes_more_memory_than_its_group_has_is_counted(small_group):
    program = (
        "import pathlib, subprocess, sys\nfrom canopy.machine import kills_for_memory\n"
        f"pathlib.Path({str(small_group / 'cgroup.procs')!r}).write_text('0')\n"
        "before, words = kills_for_memory(), 'held = bytearray(1 << 28)'\n"
        "print(subprocess.run([sys.executable, '-c', words]).returncode, kills_for_memory() - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout == b"-9 1\n"


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
