"""What this machine has for a process: cores, GPUs, instructions, memory; what it killed for want of that.

Promises: a container's limits count; nothing is imported to find out; what the system does not tell is taken
to be as on a machine without limits.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path

BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # Linux' names, in /proc/cpuinfo
ROOT = Path("/")  # tests put another system's files elsewhere
DEVICES = Path("/dev")
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"  # CUDA's word: numbers or names, parted by commas


def cores(root: Path = ROOT) -> int:
    """Cores that this process may use: taskset, cpusets and a container's CPU limit counted in.

    Args:
        root: where `proc` and `sys` are.
    """
    # Not everywhere does the system tell which cores a process may run on.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _limit(root))))


def multiplies_bfloat16(root: Path = ROOT) -> bool:
    """Whether the CPU has instructions for bfloat16: AVX512-BF16 or AMX of x86, BF16 of Arm.

    Args:
        root: where `proc` is; without it (no Linux) the answer is no.
    """
    with contextlib.suppress(OSError):
        for line in (root / "proc/cpuinfo").read_text().splitlines():
            what, _, values = line.partition(":")
            if what.strip() in ("flags", "Features"):
                return not BFLOAT16_FLAGS.isdisjoint(values.split())
    return False


def gpus(devices: Path = DEVICES) -> int:
    """How many of NVIDIA's GPUs this process may use; nothing is imported to find out.

    Args:
        devices: where their files are; there are none where Windows lends them (WSL).
    """
    there = sum(1 for _ in devices.glob("nvidia[0-9]*"))
    named = os.environ.get(VISIBLE_GPUS)
    if named is None:
        return there
    # CUDA takes those before the first that is none (CUDA C++ Programming Guide, "Environment Variables").
    usable = itertools.takewhile(lambda name: name.strip() not in ("", "-1"), named.split(","))
    return min(there, len(list(usable)))


def memory(root: Path = ROOT) -> float:
    """Bytes that this process and those around it may take, swap counted in, before one has to be killed.

    proc_meminfo(5); of control groups, version 2, `memory.max`, and version 1, `memory.limit_in_bytes`.

    Args:
        root: where `proc` and `sys` are; infinite where they do not tell.
    """
    try:
        lines = (line.split() for line in (root / "proc/meminfo").read_text().splitlines())
        sizes = {words[0]: 1024 * int(words[1]) for words in lines if words[2:] == ["kB"]}
        whole, swap = sizes["MemTotal:"], sizes.get("SwapTotal:", 0)
    except (OSError, ValueError, KeyError):
        return math.inf
    # A group may have a limit to its swap as well: at most, it has all that there is.
    return min([whole, *map(_memory_limit_of, _groups(root))]) + swap


def kills_for_memory(root: Path = ROOT) -> int:
    """How many processes of this one's control group the kernel has killed so far for want of memory.

    https://docs.kernel.org/admin-guide/cgroup-v2.html, `memory.events`, and in version 1
    https://docs.kernel.org/admin-guide/cgroup-v1/memory.html, `memory.oom_control`: both count those that a
    limit cost and those that the whole machine's shortage did.

    Args:
        root: where `proc` and `sys` are; 0 where they do not tell.
    """
    for group in _groups(root):
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError, ValueError):
                for line in (group / name).read_text().splitlines():
                    what, _, count = line.partition(" ")
                    if what == "oom_kill":
                        return int(count)
    return 0


def _limit(root: Path) -> float:
    """The CPU limit, in cores, of this process' control group and those around it; infinite without one.

    Version 2 of control groups: https://docs.kernel.org/admin-guide/cgroup-v2.html, `cpu.max`. Version 1:
    https://docs.kernel.org/scheduler/sched-bwc.html, `cpu.cfs_quota_us`.
    """
    return min(map(_limit_of, _groups(root)), default=math.inf)


def _groups(root: Path) -> Iterator[Path]:
    """The folders of this process' control group and of those around it, the innermost first.

    In version 1 each controller has its own, and no two have a file of one name that is looked for here.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            top = root / "sys/fs/cgroup" / controllers
            group = top / path.strip("/")
            # In a container the path may be the host's, of which only the top is to be seen.
            yield from (group, *(above for above in group.parents if above.is_relative_to(top)))


def _memory_limit_of(group: Path) -> float:
    for name in ("memory.max", "memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # another version, or no limit at that level
            return int((group / name).read_text())
    return math.inf


def _limit_of(group: Path) -> float:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):  # another version, or no limit at that level
            quota, period = " ".join((group / name).read_text() for name in names).split()
            if quota not in ("max", "-1"):
                return int(quota) / int(period)
    return math.inf
