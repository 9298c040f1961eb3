"""How fast is prediction, against the model alone and against the way one first writes it?

One table from one run, for each size of picture: the limit (the bare model on a batch in memory, all cores,
TensorFlow Lite and SavedModel, of which the faster counts, measured before and after each run that is held
against it: machines change their speed within minutes); Canopy's whole command, its start included; Canopy's
steady rate, which is what more images would add; and Keras' ImageDataGenerator.flow_from_dataframe under
model.predict. The network is MobileNetV2, alpha 1.0, with random weights: its arithmetic is the same.
Memory is the peak of all processes of a command together.

    python -m benchmarks.predict --chips ../shared/data/planet/chips256/train-jpg --size 224 --images 2000
    python -m benchmarks.predict --archive FOLDER_OF_32_PX_CHIPS --size 96 --images 10000,40669

Allow a quarter of an hour for each on two cores.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from beam_jobs.scoring import engines
from benchmarks.preprocess import Timing, find_chips, measure
from canopy import cli, machine, quiet
from canopy.cli import UserError

CLASSES = 17
SECONDS = 10.0  # of each measurement of the bare model
FEW = 64  # images of the run that shows what starting costs
KERAS_BATCH = 32
KERAS = "ImageDataGenerator, model.predict"
ENGINES = {engines.LITE: "TensorFlow Lite", engines.SAVED_MODEL: "SavedModel"}


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    what: str
    rate: float  # images/s
    limit: float  # images/s of the bare model at that time
    timing: Timing | None = None  # of a whole command


def network(size: int) -> Any:
    """The tagger, untrained."""
    with quiet.importing():
        import tf_keras

        from trainer import model
        from trainer.config import Config
    tf_keras.utils.set_random_seed(0)
    config = Config(data="none", model_dir="none", image_size=size, weights="none")
    return model.build(config, CLASSES, [0.3] * CLASSES, None)


def make_export(folder: str, size: int) -> None:
    """Writes `{folder}/export`."""
    built = network(size)
    from trainer import export
    from trainer.config import Config
    from trainer.data_info import DataInfo

    tags = tuple(f"tag_{i}" for i in range(CLASSES))
    info = cast(DataInfo, SimpleNamespace(vocabulary=tags, name="none", fingerprint="none"))
    config = Config(data="none", model_dir=folder, image_size=size, weights="none")
    export.export(built, config, info, [0.2] * CLASSES, {"constant_tags": list(tags[:1])})


def bare(export: str, choice: str) -> float:
    """Images per second of the bare model, all cores, on a batch in memory."""
    threads = machine.cores() if choice == engines.LITE else 1
    info = engines.read_info(export)
    loaded = engines.load(info, choice, threads).loaded
    shape = (loaded[0].batch, info.image_size, info.image_size, 3)
    pictures = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    calls: list[Callable[[], object]] = [lambda one=one: one.scores(pictures) for one in loaded]  # type: ignore[misc]
    if choice == engines.SAVED_MODEL:
        calls = [_saved(export, pictures)]
    return _rate(calls) * len(pictures)


def _saved(export: str, pictures: NDArray[np.uint8]) -> Callable[[], object]:
    """The signature itself, without the way there and back through NumPy."""
    import tensorflow as tf

    call = tf.saved_model.load(export).signatures["rgb"]
    rgb = tf.constant(pictures)

    def score() -> object:
        return call(rgb=rgb)["scores"].numpy()

    return score


def _rate(calls: Sequence[Callable[[], object]]) -> float:
    """Calls per second, all of them side by side, after a first one each."""
    counts = [0] * len(calls)
    for call in calls:
        call()
    start = time.monotonic()

    def repeat(i: int) -> None:
        while time.monotonic() - start < SECONDS:
            calls[i]()
            counts[i] += 1

    threads = [threading.Thread(target=repeat, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - start)


def keras(images: str, size: int) -> None:
    """The way one first writes it."""
    built = network(size)
    import pandas as pd
    import tf_keras

    inputs = tf_keras.Input((size, size, 3))
    model = tf_keras.Model(inputs, tf_keras.activations.sigmoid(built(inputs)))
    names = pd.DataFrame({"file": sorted(path.name for path in Path(images).iterdir())})
    generator = tf_keras.preprocessing.image.ImageDataGenerator().flow_from_dataframe(
        *(names, images, "file", None),
        target_size=(size, size),
        class_mode=None,
        batch_size=KERAS_BATCH,
        shuffle=False,
    )
    scores = model.predict(generator, verbose=0)
    with Path(f"{images}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows(
            (name, " ".join(map(str, np.flatnonzero(row > 0.2))))
            for name, row in zip(names["file"], scores, strict=True)
        )


def make_folder(chips: Sequence[Path | bytes], count: int, folder: Path) -> None:
    """So many images: the chips again and again; of files, links."""
    folder.mkdir()
    for i in range(count):
        chip, target = chips[i % len(chips)], folder / f"test_{i}.jpg"
        if isinstance(chip, bytes):
            target.write_bytes(chip)
        else:
            target.symlink_to(chip)


def contest(
    root: Path, counts: Sequence[int], chips: Sequence[Path | bytes], size: int, skip: str
) -> list[Row]:
    """Times all contestants, the smallest number of images first."""
    me = [sys.executable, "-m", "benchmarks.predict", "--size", str(size)]
    subprocess.run([*me, "--make_export", str(root)], check=True)
    export = f"{root}/export"

    def rate(choice: str) -> float:
        done = subprocess.run([*me, "--bare", export, choice], check=True, capture_output=True, text=True)
        return float(done.stdout)

    def canopy(count: int) -> Timing:
        folder = root / f"images-{count}"
        make_folder(chips, count, folder)
        flags = ["--model", export, "--images", str(folder), "--output", f"{root}/submission.csv"]
        return measure("Canopy", count, [sys.executable, "-m", "beam_jobs.predict", *flags])

    alone = {choice: rate(choice) for choice in ENGINES}
    best = max(alone, key=lambda choice: alone[choice])
    limits, rows = [alone[best]], []
    start = canopy(FEW)
    for count in counts:
        before = rate(best)
        whole = canopy(count)
        limits += [before, rate(best)]
        limit = statistics.mean(limits[-2:])
        steady = (count - FEW) / (whole.seconds - start.seconds)
        rows.append(Row("Canopy, start included", whole.rate, limit, whole))
        rows.append(Row(f"Canopy, without its start of {start.seconds:.1f} s", steady, limit))
        if skip != "keras" and count == counts[0]:  # once: it takes long
            timing = measure(KERAS, count, [*me, "--keras", f"{root}/images-{count}"])
            rows.append(Row(KERAS, timing.rate, limit, timing))
    limit = statistics.mean(limits)
    span = f"{min(limits):,.0f} to {max(limits):,.0f} images/s"
    del alone[best]
    others = [Row(f"bare model, {ENGINES[choice]}", found, limit) for choice, found in alone.items()]
    return [Row(f"bare model, {ENGINES[best]} (the limit: {span})", limit, limit), *rows, *others]


def show(rows: Sequence[Row], size: int) -> None:
    """Prints the table."""
    table = Table(title=f"Prediction at {size} px, {machine.cores()} cores")
    for column in ("images", "what", "seconds", "images/s", "of the limit", "times Keras", "peak MB"):
        table.add_column(column, justify="left" if column == "what" else "right")
    slow = next((row.rate for row in rows if row.what == KERAS), None)
    for row in rows:
        timing = row.timing
        table.add_row(
            f"{timing.images:,}" if timing else "",
            row.what,
            f"{timing.seconds:.1f}" if timing else "",
            f"{row.rate:,.0f}",
            f"{row.rate / row.limit:.2f}",
            f"{row.rate / slow:.1f}" if slow else "",
            f"{timing.peak_mb:,.0f}" if timing else "",
        )
    Console(width=120).print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m benchmarks.predict`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", default="2000", help="how many; several parted by commas (2000)")
    parser.add_argument("--size", type=int, default=224, help="side of the network's pictures, pixels (224)")
    parser.add_argument("--chips", help="folder of JPEGs to copy (the real originals, or a sample archive)")
    parser.add_argument("--archive", help="folder of JPEGs to take as they are, each once at most")
    parser.add_argument("--skip", default="", help="keras: leave it out")
    parser.add_argument("--make_export", help=argparse.SUPPRESS)
    parser.add_argument("--bare", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--keras", help=argparse.SUPPRESS)
    flags = parser.parse_args(argv)

    def command() -> None:
        if flags.make_export:
            make_export(flags.make_export, flags.size)
        elif flags.bare:
            print(bare(*flags.bare))
        elif flags.keras:
            keras(flags.keras, flags.size)
        else:
            counts = sorted(map(int, flags.images.split(",")))
            chips: list[Path | bytes] = []
            if flags.archive:
                chips += sorted(Path(flags.archive).absolute().glob("*.jpg"))
                if len(chips) < counts[-1]:
                    raise UserError(f"--archive {flags.archive} has {len(chips):,} JPEGs")
            else:
                chips += find_chips(flags.chips)
            with tempfile.TemporaryDirectory(prefix="canopy-bench-") as folder:
                show(contest(Path(folder), counts, chips, flags.size, flags.skip), flags.size)

    return cli.run(command)


if __name__ == "__main__":
    sys.exit(main())
