"""How fast does the trainer train: against input from memory, against itself on more cores, against PyTorch?

One table from one run. What is measured is trainer.launch with real records, by the images per second of its
metrics.jsonl, of which the first lines are left out:

- real against synthetic: one worker on all cores; its input is replaced by one batch in memory for every
  second line, so that both see the same load. The share is that of the steps a second.
- a worker a core against one worker on one core (taskset), the same batch for each worker, in turns; and
  against a run of its own on each core at the same time, which is what the cores can do together.
- a worker a core once more, with --exchange bfloat16; and with --mixed_precision native on a CPU that
  multiplies in bfloat16.
- PyTorch: the same network, batch and size on all cores, on a synthetic batch, where an interpreter has it.
- on a GPU: float32 and mixed precision, each with and without XLA (TF_XLA_FLAGS=--tf_xla_auto_jit=2); on
  several, each with --communication ring and nccl. Workers of a core each leave GPUs alone: all of them would
  share one.

Two cores of a virtual machine may be two threads of one core (see lscpu), and share memory and caches anyway:
one worker alone has more than its part of them, so the efficiency against it reads low. The one against runs
side by side is what working together costs.

    python -m benchmarks.train --torch_python /path/to/python
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.contest import hold, torch_at, torch_contestant
from benchmarks.preprocess import find_chips, make_archive
from canopy import cli, machine, quiet
from canopy.cli import UserError

LEFT_OUT = 2  # lines of each kind: tracing, and the memory's and the processor's first steps
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


@dataclass
class Measured:
    """The rates of one way to train."""

    what: str
    rates: list[float] = field(default_factory=list)  # images/s of each line

    @property
    def rate(self) -> float:
        """The median, images/s."""
        return statistics.median(self.rates) if self.rates else float("nan")


def make_records(chips: str | None, count: int, root: Path) -> None:
    """Preprocesses copies of the chips, with the command that users have."""
    make_archive(find_chips(chips), count, root)
    _run(
        [sys.executable, "-m", "beam_jobs.preprocess", "--images", f"{root}/train-jpg", "--labels",
         f"{root}/train_v2.csv", "--output", f"{root}/records", "--splits", "train=0.97,validation=0.03"],
        dict(os.environ),
    )  # fmt: skip


def _run(command: Sequence[str], environment: dict[str, str]) -> None:
    with tempfile.TemporaryFile() as said:
        done = subprocess.run(command, check=False, stdout=said, stderr=said, env=environment)
        if done.returncode:
            said.seek(0)
            raise UserError(f"{' '.join(command)} failed: {said.read().decode(errors='replace')[-2000:]}")


def train(
    root: Path, flags: Sequence[str], *, workers: int, taskset: Sequence[str] = (), **environment: str
) -> list[float]:
    """Runs the trainer and returns the images per second of its lines.

    Args:
        root: where `records` is; the model goes beside it.
        flags: trainer.task's, but for data and model_dir.
        workers: of trainer.launch; 0: trainer.task itself, its input alternating.
        taskset: what stands before the command.
        environment: added to this process' own.
    """
    with tempfile.TemporaryDirectory(dir=root) as model:
        launched = ["trainer.launch", "--local_workers", str(workers), "--"]
        module = launched if workers else ["benchmarks.train", "--alternate", "--"]
        task = [*flags, "--data", f"{root}/records", "--model_dir", model, "--weights", "none"]
        _run([*taskset, sys.executable, "-m", *module, *task], dict(os.environ, **environment))
        lines = [json.loads(line) for line in Path(model, "metrics.jsonl").read_text().splitlines()]
        return [line["images_per_second"] for line in lines if "loss" in line][:-1]


def alternate(flags: Sequence[str]) -> int:
    """`trainer.task` whose input is its reader's and one batch in memory, for `--log_steps` steps each."""
    from trainer import config, task

    block = config.parse(flags).log_steps
    with quiet.importing():
        from trainer import dataset
    whole = dataset.iterate

    def iterate(reading: Any, epoch: int = 0, first_step: int = 0) -> Iterator[Any]:
        real = whole(reading, epoch, first_step)
        if not reading.shuffle:  # validation
            yield from real
            return
        kept = None
        for step in range(first_step, reading.steps):
            if kept is None or step // block % 2 == 0:
                kept = next(real)
            yield kept

    dataset.iterate = iterate
    return task.main(flags)


def contest(root: Path, size: int, batch: int, steps: int, rounds: int) -> dict[str, Measured]:
    """Times the trainer in all its ways, in turns; those that this machine does not allow have no rates."""
    cores = machine.cores()
    found = {
        "real": Measured("real records"),
        "memory": Measured("one batch in memory"),
        "one": Measured("one worker on one core"),
        "apart": Measured(f"{cores} runs side by side, a core each"),
        "together": Measured(f"{cores} workers, a core each"),
        "halved": Measured(f"{cores} workers, a core each, exchange in bfloat16"),
        "native": Measured(f"{cores} workers, a core each, bfloat16"),
    }

    def add(way: str, rates: Sequence[float]) -> None:
        found[way].rates += rates[LEFT_OUT:]

    # A container may be limited to fewer cores than it may run on.
    pins = [["taskset", "-c", str(core)] for core in sorted(os.sched_getaffinity(0))[:cores]]
    common = ["--image_size", str(size), "--epochs", "1", "--log_steps", str(steps)]
    alone = ["--batch_size", str(batch // cores)]
    together = ["--batch_size", str(batch // cores * cores)]
    for _ in range(rounds):
        rates = train(root, [*common, *together], workers=0)
        add("real", rates[::2])
        add("memory", rates[1::2])
        if cores > 1:
            add("one", train(root, [*common, *alone], workers=1, taskset=pins[0], **NO_GPU))
            add("together", train(root, [*common, *together], workers=cores, **NO_GPU))
            with ThreadPoolExecutor(cores) as pool:
                runs = pool.map(
                    lambda pin: train(root, [*common, *alone], workers=1, taskset=pin, **NO_GPU), pins
                )
                add("apart", list(map(sum, zip(*runs, strict=True))))
            exchange = ["--exchange", "bfloat16"]
            add("halved", train(root, [*common, *together, *exchange], workers=cores, **NO_GPU))
            if machine.multiplies_bfloat16():
                precision = ["--mixed_precision", "native"]
                add("native", train(root, [*common, *together, *precision], workers=cores, **NO_GPU))
    return found


def on_gpu(root: Path, size: int, batch: int, steps: int, gpus: int) -> dict[str, Measured]:
    """Each precision, with and without XLA; with several GPUs each exchange, too."""
    found = {}
    precisions, compilers = ("float32", "mixed_bfloat16", "mixed_float16"), ("", "--tf_xla_auto_jit=2")
    exchanges = ("ring", "nccl") if gpus > 1 else ("ring",)
    for precision, xla, exchange in itertools.product(precisions, compilers, exchanges):
        flags = ["--image_size", str(size), "--epochs", "2", "--batch_size", str(batch), "--log_steps"]
        flags += [str(steps), "--mixed_precision", precision, "--communication", exchange]
        rates = train(root, flags, workers=1, TF_XLA_FLAGS=xla)
        by = f", {exchange}" if gpus > 1 else ""
        what = f"GPU, {precision}, {'XLA' if xla else 'no XLA'}{by}"
        found[what] = Measured(what, rates[LEFT_OUT:])
    return found


def torch_rate(python: str, size: int, batch: int, rounds: int) -> Measured:
    """PyTorch's images per second."""
    contestant = torch_contestant("PyTorch", python, way="train", size=size, batch=batch)
    hold([contestant], 3 * rounds, 8.0)
    return Measured("PyTorch, one batch in memory", contestant.rates)


def show(found: dict[str, Measured], title: str) -> None:
    """Prints the table, and what follows from it."""
    table = Table(title=title)
    for column in ("what", "images/s", "from", "to", "lines"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for each in found.values():
        if each.rates:
            numbers = (each.rate, min(each.rates), max(each.rates))
            table.add_row(each.what, *(f"{n:,.1f}" for n in numbers), str(len(each.rates)))
    console = Console(width=100)
    console.print(table)
    rate = {way: each.rate for way, each in found.items()}
    console.print(f"real / in memory: {rate['real'] / rate['memory']:.3f}")
    if found["together"].rates:
        for way, how in (("together", ""), ("halved", ", exchange in bfloat16")):
            share = rate[way] / machine.cores() / rate["one"]
            console.print(f"efficiency a worker, against one alone{how}: {share:.3f}")
            share = rate[way] / rate["apart"]
            console.print(f"efficiency a worker, against runs side by side{how}: {share:.3f}")
    if found["native"].rates:
        console.print(f"bfloat16 / float32: {rate['native'] / rate['together']:.3f}")
    gpu = [way for way in rate if way.startswith("GPU")]
    if "torch" in rate:
        console.print(f"real / PyTorch: {rate['real'] / rate['torch']:.3f}")
        if found["together"].rates and not gpu:  # with one, PyTorch computes there
            console.print(f"{found['together'].what} / PyTorch: {rate['together'] / rate['torch']:.3f}")
    if gpu:
        console.print(f"best on the GPU: {max(gpu, key=lambda way: rate[way])}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m benchmarks.train`."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:2] == ["--alternate", "--"]:
        return alternate(given[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--chips", help="folder of JPEGs to copy (the real originals, or a sample archive)")
    parser.add_argument("--images", type=int, default=4096, help="how many copies (4096)")
    parser.add_argument("--image_size", type=int, default=96, help="pixels (96)")
    parser.add_argument("--batch_size", type=int, default=64, help="images a step on all cores (64)")
    parser.add_argument("--log_steps", type=int, default=6, help="steps behind each rate (6)")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each way (2)")
    parser.add_argument("--torch_python", default=sys.executable, help="an interpreter with torch and Pillow")
    flags = parser.parse_args(given)

    def command() -> None:
        torch_python = torch_at(flags.torch_python)
        with tempfile.TemporaryDirectory(prefix="canopy-bench-") as folder:
            root = Path(folder)
            make_records(flags.chips, flags.images, root)
            size, batch = flags.image_size, flags.batch_size
            found = contest(root, size, batch, flags.log_steps, flags.rounds)
            if torch_python:
                found["torch"] = torch_rate(torch_python, size, batch, flags.rounds)
            with quiet.importing():
                import tensorflow as tf
            if gpus := tf.config.list_physical_devices("GPU"):
                found |= on_gpu(root, size, batch, flags.log_steps, len(gpus))
            show(found, f"Training at {size} px, {machine.cores()} cores")
            if not torch_python:
                print("PyTorch: not installed")

    return cli.run(command)


if __name__ == "__main__":
    sys.exit(main())
