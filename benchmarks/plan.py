"""How does the plan itself scale, with names and labels only and no pixels?

For each size, in a process of its own: writes nothing but a CSV, makes names as a listing holds them, then
times what the job does with them: reading the CSV, hashing, joining, splitting, shuffling, setting aside
and slicing into work lists, each made and dropped.

    python -m benchmarks.plan --names 50000,500000,5000000
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from rich.console import Console
from rich.table import Table

from beam_jobs import commit, prepare, settings, sources
from canopy import cli

FILES_A_FOLDER = 100_000


def write_labels(path: Path, count: int) -> None:
    """A CSV of `count` rows with some hundred distinct sets of tags."""
    tags = [f"clear primary tag{i % 17} tag{i % 13}" for i in range(221)]
    with path.open("w") as file:
        file.write("image_name,tags\n")
        file.writelines(f"train_{i},{tags[i % 221]}\n" for i in range(count))


def listing(count: int) -> sources.Listing:
    """What listing a folder of `count` files gives."""
    result = sources.Listing()
    for first in range(0, count, FILES_A_FOLDER):
        members = sorted(f"train_{i}.jpg" for i in range(first, min(first + FILES_A_FOLDER, count)))
        result.add(f"/archive/part-{first:09d}", members)
    return result


def measure(count: int, shards: int) -> None:
    """Prints seconds for the plan, seconds for the work lists, and peak MB."""
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder, "labels.csv")
        write_labels(labels, count)
        flags = ["--images", folder, "--labels", str(labels), "--output", folder, "--num_shards", str(shards)]
        job, _ = settings.parse(flags)
        found = listing(count)
        start = time.monotonic()
        with mock.patch.object(prepare, "list_images", return_value=found):
            prepared = prepare.sharded(prepare.prepare(job, own=""), job)
        planned = time.monotonic()
        items = sum(len(work.items) for work in prepare.work_lists(prepared, job, commit.Output(folder), ""))
        done = time.monotonic()
        if items != count:
            raise RuntimeError(f"{count} names, but {items} in the work lists")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(planned - start, done - planned, peak)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m benchmarks.plan`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--names", default="50000,500000,5000000", help="sizes, parted by commas")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    flags = parser.parse_args(argv)

    def command() -> None:
        if flags.one:
            measure(flags.one, max(flags.one // 7000, 16))
            return
        table = Table(title="The plan, without pixels")
        for column in ("names", "plan s", "work lists s", "total s", "peak MB", "bytes a name"):
            table.add_column(column, justify="right")
        base = 0.0
        for count in map(int, flags.names.split(",")):
            me = [sys.executable, "-m", "benchmarks.plan", "--one", str(count)]
            said = subprocess.run(me, check=True, capture_output=True, text=True).stdout
            plan, lists, peak = map(float, said.split())
            base = base or peak
            each = f"{(peak - base) * 1e6 / count:,.0f}" if peak > base else ""
            table.add_row(
                f"{count:,}", f"{plan:.1f}", f"{lists:.1f}", f"{plan + lists:.1f}", f"{peak:,.0f}", each
            )
        Console(width=100).print(table)

    return cli.run(command)


if __name__ == "__main__":
    sys.exit(main())
