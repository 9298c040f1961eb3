"""What do faults cost a run, and does it end as one that nothing happened to?

One table from one run. Pods of an Indexed Job are played by processes of this machine, each a
trainer.launch with the Job's variables; whoever ends as the Job's policy replaces it (75, 143, or killed)
is started again after some seconds, and any other end fails the benchmark. The first run is left alone. The
second gets one fault after the other, drawn at random, each as soon as the one before has been got over and
some steps later. Seconds are from the fault to the next step that is written down. Both train the same
network on the same records, so the losses of their steps can be compared: only what a checkpoint does to
BatchNormalization's statistics may differ.

    python -m benchmarks.survive --faults 32 --epochs 40
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.preprocess import tree
from benchmarks.train import make_records
from canopy import children, cli
from canopy.cli import UserError
from trainer import cluster

REPLACED = {75, 143, -signal.SIGKILL}  # ends after which the Job's policy makes another pod
PAUSE = (1.0, 8.0)  # seconds until there is one
THAWED = (5.0, 60.0)  # seconds after which a frozen pod goes on
STEPS = (3, 40)  # between a step and the next fault
SETTLED_SECONDS = 1.0  # a step that was all but done may still be written down after a fault
LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 600.0  # without a step, a run is lost
LAUNCHER, TRAINING = slice(1), slice(1, None)  # of a pod's processes


class Pod:
    """One pod of the Job, and those that replace it."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        """Starts the first."""
        self._command, self._environment, self._log = command, environment, log
        self.starts = 0
        self.start()

    def start(self) -> None:
        """Starts one."""
        self.starts, self.due = self.starts + 1, 0.0
        with self._log.open("ab") as log:
            environment = {**os.environ, **self._environment}
            self.launcher = subprocess.Popen(self._command, env=environment, stdout=log, stderr=log)

    def signal(self, number: int, whom: slice = slice(None)) -> list[int]:
        """Sends a signal to the launcher and all below it, or to some of them."""
        pids = list(tree(self.launcher.pid))[whom]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids


class Run:
    """A run, its pods replaced as they end."""

    def __init__(self, root: Path, name: str, workers: int, flags: Sequence[str]) -> None:
        """Starts it."""
        self.model = root / name
        self.model.mkdir()
        self._thaws: dict[int, float] = {}  # of each frozen process: when it goes on
        addresses = ",".join(f"127.0.0.1:{port}" for port in cluster.free_ports(workers))
        command = [sys.executable, "-m", "trainer.launch", "--", "--data", str(root / "records")]
        command += ["--model_dir", str(self.model), *flags]
        self.pods = [
            Pod(
                command,
                {"JOB_COMPLETION_INDEX": str(index), "CANOPY_ADDRESSES": addresses},
                self.model / f"pod-{index}.log",
            )
            for index in range(workers)
        ]

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        for pod in self.pods:
            pod.signal(signal.SIGKILL)
            pod.launcher.wait()

    def losses(self) -> list[tuple[int, float]]:
        """Steps and losses in the order in which they were written down; some come twice after a fault."""
        path = self.model / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        lines = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
        return [(line["step"], line["loss"]) for line in lines if "loss" in line]

    def look(self) -> bool:
        """Sees to the pods; returns whether all are done."""
        time.sleep(LOOK_SECONDS)
        now = time.monotonic()
        for pid, at in list(self._thaws.items()):
            if now >= at:
                del self._thaws[pid]
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        ends = [pod.launcher.poll() for pod in self.pods]
        for index, (pod, end) in enumerate(zip(self.pods, ends, strict=True)):
            if end in REPLACED:
                pod.due = pod.due or now + random.uniform(*PAUSE)
                if now >= pod.due:
                    pod.start()
            elif end:
                said = (self.model / f"pod-{index}.log").read_text(errors="replace")
                raise UserError(f"pod {index} ended with {end}: {said[-2000:]}")
        return not any(end is None or end in REPLACED for end in ends)

    def until_written(self, count: int) -> bool:
        """Waits until so many lines of steps are there; returns False where the run is done before that."""
        before, patience = len(self.losses()), time.monotonic() + PATIENCE_SECONDS
        while (now := len(self.losses())) < count:
            if self.look():
                return False
            if now > before:
                before, patience = now, time.monotonic() + PATIENCE_SECONDS
            if time.monotonic() > patience:
                raise UserError(f"{self.model.name}: no step for {PATIENCE_SECONDS:.0f} s")
        return True

    def freeze(self, pod: Pod, _: Pod) -> None:
        """Stops a pod, which goes on after a while."""
        thaw = time.monotonic() + random.uniform(*THAWED)
        self._thaws |= dict.fromkeys(pod.signal(signal.SIGSTOP), thaw)

    def damage(self, pod: Pod, _: Pod) -> None:
        """Takes half of the newest checkpoint away where there is an older one, and kills a pod."""
        if len(saved := sorted(self.model.glob("checkpoints/*.npz"))) > 1:
            os.truncate(saved[-1], saved[-1].stat().st_size // 2)
        pod.signal(signal.SIGKILL)


FAULTS: dict[str, Callable[[Run, Pod, Pod], object]] = {
    "a training process is killed": lambda _, pod, __: pod.signal(signal.SIGKILL, TRAINING),
    "a training process is frozen for good": lambda _, pod, __: pod.signal(signal.SIGSTOP, TRAINING),
    "a pod is killed": lambda _, pod, __: pod.signal(signal.SIGKILL),
    "a pod and another's training process are killed": lambda _, pod, other: (
        pod.signal(signal.SIGKILL),
        other.signal(signal.SIGKILL, TRAINING),
    ),
    "a pod is frozen for 5 to 60 s": Run.freeze,
    "a pod is told to end": lambda _, pod, __: pod.signal(signal.SIGTERM, LAUNCHER),
    "all pods are told to end": lambda run, _, __: [pod.signal(signal.SIGTERM, LAUNCHER) for pod in run.pods],
    "the newest checkpoint is cut short, a pod killed": Run.damage,
}


def faults(count: int) -> Iterator[str]:
    """Each kind as often as the others, in an order drawn at random."""
    while count > 0:
        some = random.sample(list(FAULTS), min(count, len(FAULTS)))
        count -= len(some)
        yield from some


def disturb(run: Run, count: int) -> dict[str, list[float]]:
    """Lets faults happen until the run is done.

    Returns:
        Of each kind the seconds from the fault to the next step.
    """
    found = collections.defaultdict(list)
    for fault in faults(count):
        if not run.until_written(len(run.losses()) + random.randint(*STEPS)):
            break
        FAULTS[fault](run, *random.sample(run.pods, 2))
        at = time.monotonic()
        while time.monotonic() < at + SETTLED_SECONDS:
            run.look()
        if not run.until_written(len(run.losses()) + 1):
            break
        found[fault].append(time.monotonic() - at)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m benchmarks.survive`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--chips", help="folder of JPEGs to copy (the real originals, or a sample archive)")
    parser.add_argument("--images", type=int, default=2400, help="how many copies (2400)")
    parser.add_argument("--workers", type=int, default=3, help="pods, at least 2 (3)")
    parser.add_argument("--faults", type=int, default=16, help="how many (16)")
    parser.add_argument("--epochs", type=int, default=20, help="of the run (20)")
    parser.add_argument("--seed", type=int, default=0, help="of the faults (0)")
    given = parser.parse_args(argv)
    flags = ["--epochs", str(given.epochs), "--batch_size", "96", "--image_size", "48", "--alpha", "0.35"]
    flags += ["--weights", "none", "--checkpoint_steps", "25", "--log_steps", "1"]

    def command() -> None:
        if given.workers < 2:
            raise UserError(f"--workers must be at least 2, and is {given.workers}")
        children.check_memory("--workers", given.workers, cluster.WORKER_BYTES)
        random.seed(given.seed)
        with tempfile.TemporaryDirectory(prefix="canopy-bench-") as folder:
            root = Path(folder)
            make_records(given.chips, given.images, root)
            with Run(root, "undisturbed", given.workers, flags) as alone:
                while not alone.look():
                    pass
            with Run(root, "disturbed", given.workers, flags) as run:
                seconds = disturb(run, given.faults)
                while not run.look():
                    pass
                show(alone, run, seconds)

    return cli.run(command)


def show(alone: Run, run: Run, seconds: dict[str, list[float]]) -> None:
    """Prints the table, and how the runs differ."""
    table = Table(title=f"{len(run.pods)} pods: seconds from a fault to the next step")
    for column in ("fault", "times", "median", "most"):
        table.add_column(column, justify="left" if column == "fault" else "right")
    for fault, each in sorted(seconds.items()):
        table.add_row(fault, str(len(each)), f"{statistics.median(each):.1f}", f"{max(each):.1f}")
    console = Console(width=100)
    console.print(table)
    undisturbed, taken = dict(alone.losses()), run.losses()
    if undisturbed.keys() != dict(taken).keys():
        raise UserError("the runs took different steps")
    apart = max(abs(loss - undisturbed[step]) for step, loss in taken)
    starts = sum(pod.starts for pod in run.pods) - len(run.pods)
    console.print(
        f"{len(undisturbed)} steps; {len(taken) - len(undisturbed)} taken again; {starts} pods replaced; "
        f"the largest difference of a step's loss from the undisturbed run: {apart:.6f}"
    )


if __name__ == "__main__":
    sys.exit(main())
