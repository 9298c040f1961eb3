"""What this machine offers."""

from __future__ import annotations

import os


def cores() -> int:
    """Cores that this process may use (taskset and cpusets counted in where the system tells)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
