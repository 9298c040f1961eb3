"""Contestants that take turns: each a process of its own that works when asked, and waits otherwise.

Promises: all are started and warmed up before the first is timed, every round asks each one in turn, and the
median over the rounds is what counts, so that a load that comes and goes meets all alike.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from canopy import machine
from canopy.cli import UserError

DRAIN_BATCHES = 16  # that a reader may hold ready


@dataclass
class Contestant:
    """One process, and what it has done so far."""

    what: str  # its name in the table
    command: Sequence[str]
    rates: list[float] = field(default_factory=list)  # images/s, a round each
    cpu: list[float] = field(default_factory=list)  # microseconds of this process' processor time an image

    @property
    def rate(self) -> float:
        """The median of its rounds, images/s."""
        return statistics.median(self.rates)


def torch_at(python: str) -> str:
    """The interpreter where it has torch and Pillow, else nothing."""
    asked = subprocess.run([python, "-c", "import torch, PIL"], capture_output=True, check=False)
    return python if asked.returncode == 0 else ""


def torch_contestant(what: str, python: str, **settings: Any) -> Contestant:
    """PyTorch's way, as `benchmarks.torch_side` goes it on all cores.

    Args:
        what: its name in the table.
        python: an interpreter that has torch.
        **settings: `way`, input or train, and what that takes.
    """
    given = json.dumps({**settings, "cores": machine.cores()})
    return Contestant(what, [python, "-m", "benchmarks.torch_side", given])


def hold(contestants: Sequence[Contestant], rounds: int, seconds: float) -> None:
    """Lets them take turns; fills in what they did.

    Args:
        contestants: to start.
        rounds: turns of each.
        seconds: of each turn.
    """
    processes: list[subprocess.Popen[str]] = []
    try:
        for each in contestants:
            processes.append(
                subprocess.Popen(each.command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            _expect(each, processes[-1], "ready")
        for _ in range(rounds):
            for each, process in zip(contestants, processes, strict=True):
                assert process.stdin is not None
                process.stdin.write(f"{seconds}\n")
                process.stdin.flush()
                images, took, cpu = map(float, _expect(each, process).split())
                each.rates.append(images / took)
                each.cpu.append(1e6 * cpu / images)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _expect(contestant: Contestant, process: subprocess.Popen[str], word: str = "") -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(word):
            return line
    raise UserError(f"{contestant.what} failed with exit code {process.wait()}: see above")


def serve(batches: Iterator[int], drain: int = DRAIN_BATCHES) -> None:
    """A contestant's side: works for as long as each line on stdin says, and says what it did.

    Args:
        batches: yields how many images each batch has, for ever.
        drain: batches that are not timed: some may lie ready from before.
    """
    for _ in range(drain):
        next(batches)
    print("ready", flush=True)
    for line in sys.stdin:
        for _ in range(drain):
            next(batches)
        images, start, used = 0, time.monotonic(), time.process_time()
        while time.monotonic() - start < float(line):
            images += next(batches)
        print(images, time.monotonic() - start, time.process_time() - used, flush=True)
