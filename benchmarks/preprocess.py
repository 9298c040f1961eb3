"""How fast is preprocessing, against a naive pipeline and against the machine's limit?

One table from one run: Canopy with its default command line; the pipeline that one writes first (MatchFiles,
ReadMatches, Map, WriteToTFRecord on the default DirectRunner); and as many plain processes as cores that
decode, re-encode at the same quality and chroma and write, with no Beam. Each is a command of its own,
timed from its start to its end; memory is the peak of all its processes together.

    python -m benchmarks.preprocess --images 8000,80000
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from beam_jobs import images
from canopy import cli, machine
from canopy.cli import UserError

QUALITY, SUBSAMPLING = 95, 2  # Canopy's default: quality 95, 4:2:0
SAMPLE_SECONDS = 1.0  # a look at a large process holds it up for a while


@dataclass(frozen=True)
class Timing:
    """How one command did."""

    what: str
    images: int
    seconds: float  # wall clock, start included
    cpu: float  # seconds of all its processes
    peak_mb: float  # of all its processes together, 10^6 bytes

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds


def find_chips(given: str | None) -> list[bytes]:
    """The chips to copy: the folder given, the real originals, or a sample archive's (made if need be)."""
    real = Path(os.environ.get("CANOPY_DATA", "../shared/data")) / "planet" / "chips256" / "train-jpg"
    sample = Path("build/demo/archive/train-jpg")
    folder = Path(given) if given else real if real.is_dir() else sample
    if not given and not folder.is_dir():
        subprocess.run([sys.executable, "-m", "canopy.sample", "--output", str(sample.parent)], check=True)
    chips = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))[:200]]
    whole = [chip for chip in chips if _decodes(chip)]
    if not whole:
        raise UserError(f"--chips: no JPEG in {folder}")
    return whole


def _decodes(chip: bytes) -> bool:
    try:
        images.to_rgb(chip)
    except images.RejectedImage:
        return False
    return True


def make_archive(chips: Sequence[bytes], count: int, root: Path) -> None:
    """Copies chips until there are `count`, with a CSV."""
    folder = root / "train-jpg"
    folder.mkdir(parents=True)
    with (root / "train_v2.csv").open("w") as table:
        table.write("image_name,tags\n")
        for i in range(count):
            (folder / f"train_{i}.jpg").write_bytes(chips[i % len(chips)])
            table.write(f"train_{i},{'clear primary' if i % 3 else 'haze primary water'}\n")


def measure(what: str, images: int, command: Sequence[str]) -> Timing:
    """Runs a command and watches its processes' memory."""
    peak = 0.0
    start, used = time.monotonic(), _cpu()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        while process.poll() is None:
            peak = max(peak, sum(map(_memory, tree(process.pid))))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SAMPLE_SECONDS)
        seconds = time.monotonic() - start
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{what} failed:\n{said.read().decode(errors='replace')[-3000:]}")
    return Timing(what, images, seconds, _cpu() - used, peak / 1e6)


def _cpu() -> float:
    """Seconds of processor time that ended commands have used, their own children included."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def tree(root: int) -> Iterator[int]:
    """A process and all below it, whichever of its threads started them."""
    yield root
    for listed in Path(f"/proc/{root}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            for child in listed.read_text().split():
                yield from tree(int(child))


def _memory(process: int) -> float:
    """Bytes of memory, those shared by n processes counted by an n-th in each (PSS)."""
    try:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return float(line.split()[1]) * 1024
    except OSError:
        pass
    return 0.0


def naive(archive: str, output: str) -> None:
    """The pipeline that one writes first."""
    import csv
    import io

    import apache_beam as beam
    import tensorflow as tf
    from apache_beam.io import fileio
    from PIL import Image

    def of_bytes(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    with Path(archive, "train_v2.csv").open() as file:
        tags = {row["image_name"]: row["tags"] for row in csv.DictReader(file)}

    def convert(file: fileio.ReadableFile) -> bytes:
        name = Path(file.metadata.path).stem
        out = io.BytesIO()
        Image.open(io.BytesIO(file.read())).convert("RGB").save(
            out, "JPEG", quality=QUALITY, subsampling=SUBSAMPLING
        )
        feature = {"image/encoded": of_bytes(out.getvalue()), "image/tags": of_bytes(tags[name].encode())}
        example = tf.train.Example(features=tf.train.Features(feature=feature))
        data: bytes = example.SerializeToString()
        return data

    with beam.Pipeline() as pipeline:
        (
            pipeline
            | fileio.MatchFiles(f"{archive}/train-jpg/*.jpg")
            | fileio.ReadMatches()
            | beam.Map(convert)
            | beam.io.WriteToTFRecord(f"{output}/naive", num_shards=16)
        )


def limit(archive: str, output: str) -> None:
    """Plain processes, one a core: decode, re-encode, write."""
    import multiprocessing

    workers = machine.cores()
    names = sorted(path.name for path in Path(archive, "train-jpg").iterdir())
    parts = [
        multiprocessing.Process(target=_limit_part, args=(archive, output, names[i::workers], i))
        for i in range(workers)
    ]
    for part in parts:
        part.start()
    for part in parts:
        part.join()
        if part.exitcode:
            raise RuntimeError("a process failed")


def _limit_part(archive: str, output: str, names: Sequence[str], number: int) -> None:
    import io

    from PIL import Image

    with Path(output, f"part-{number}").open("wb") as file:
        for name in names:
            out = io.BytesIO()
            with Image.open(f"{archive}/train-jpg/{name}") as image:
                image.convert("RGB").save(out, "JPEG", quality=QUALITY, subsampling=SUBSAMPLING)
            file.write(out.getvalue())


def contest(root: Path, count: int, flags: Sequence[str], skip: set[str]) -> list[Timing]:
    """Times all contestants on one archive."""
    me = [sys.executable, "-m", "benchmarks.preprocess"]
    canopy = [
        sys.executable, "-m", "beam_jobs.preprocess", "--images", f"{root}/train-jpg",
        "--labels", f"{root}/train_v2.csv", *flags,
    ]  # fmt: skip
    commands = {
        "limit": [*me, "--limit", str(root)],
        "Canopy": canopy,
        "Canopy, keep": [*canopy, "--image_format", "keep"],
        "naive": [*me, "--naive", str(root)],
    }
    timings = []
    for what, command in commands.items():
        if what in skip:
            continue
        output = root / "out"
        output.mkdir()
        timings.append(measure(what, count, [*command, "--output", str(output)]))
        shutil.rmtree(output)
    return timings


def show(timings: Sequence[Timing]) -> None:
    """Prints the table."""
    table = Table(title=f"Preprocessing, {machine.cores()} cores")
    for column in (
        "images",
        "what",
        "seconds",
        "images/s",
        "of the limit",
        "times naive",
        "CPU s",
        "peak MB",
    ):
        table.add_column(column, justify="left" if column == "what" else "right")
    for timing in timings:
        same = {other.what: other for other in timings if other.images == timing.images}
        top, low = same.get("limit"), same.get("naive")
        table.add_row(
            f"{timing.images:,}",
            timing.what,
            f"{timing.seconds:.1f}",
            f"{timing.rate:,.0f}",
            f"{timing.rate / top.rate:.2f}" if top else "",
            f"{timing.rate / low.rate:.1f}" if low else "",
            f"{timing.cpu:.1f}",
            f"{timing.peak_mb:,.0f}",
        )
    Console(width=100).print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m benchmarks.preprocess`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", default="8000", help="how many; several parted by commas (8000)")
    parser.add_argument(
        "--chips", help="folder of the JPEGs to copy (the real originals, or a sample archive)"
    )
    parser.add_argument("--work", help="folder for the copies, removed at the end (a temporary one)")
    parser.add_argument("--skip", default="", help="contestants to leave out, parted by commas")
    parser.add_argument("--naive", help=argparse.SUPPRESS)
    parser.add_argument("--limit", help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    flags, rest = parser.parse_known_args(argv)

    def command() -> None:
        if flags.naive or flags.limit:
            (naive if flags.naive else limit)(flags.naive or flags.limit, flags.output)
            return
        chips = find_chips(flags.chips)
        timings = []
        for count in map(int, flags.images.split(",")):
            with tempfile.TemporaryDirectory(dir=flags.work, prefix="canopy-bench-") as folder:
                make_archive(chips, count, Path(folder))
                timings += contest(Path(folder), count, rest, set(flags.skip.split(",")))
            show(timings)

    return cli.run(command)


if __name__ == "__main__":
    sys.exit(main())
