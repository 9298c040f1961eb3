"""How fast do chips become batches, against the ways one would take otherwise and against the decoder alone?

One table from one run: Canopy's reader, with and without the augmentation that training does on its device
(here this CPU); Keras' ImageDataGenerator.flow_from_dataframe, with random turns and flips and without;
Keras' image_dataset_from_directory; PyTorch's DataLoader with Pillow, a process a core, where an interpreter
has torch; and the limit: tf.io.decode_jpeg alone over records in memory, on all cores, an image a call and
16 a call. All take the same JPEGs, batch and output size, take turns, and start behind a warm-up.

    python -m benchmarks.input --sizes 256,224 --torch_python /path/to/python
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from beam_jobs.images import Encoding, convert
from beam_jobs.records import frame, serialise
from benchmarks.contest import Contestant, hold, serve, torch_at, torch_contestant
from benchmarks.preprocess import find_chips
from canopy import cli, machine, quiet

BATCH, CLASSES, SHARDS, CHUNK = 64, 17, 4, 16
ROUNDS_AN_EPOCH = 8  # of the copies: an epoch of a few seconds would measure how epochs begin
LIMITS = ("decode_jpeg alone, an image a call", "decode_jpeg alone, 16 a call")
CANOPY, AUGMENTED = "Canopy's reader", "Canopy, augmented on this CPU"
FLOATS = "Canopy, augmented and made float32 on this CPU"
GENERATOR, FIRST_USERS = "ImageDataGenerator", "ImageDataGenerator, augmented"
TORCH = "PyTorch DataLoader, Pillow"
GENERATORS = (GENERATOR, FIRST_USERS)  # they need scipy, whatever they are asked to do


def make_data(chips: Sequence[bytes], count: int, root: Path) -> None:
    """The same JPEGs as files and as records."""
    pictures = [convert(chip, Encoding()) for chip in chips]
    (root / "jpg" / "all").mkdir(parents=True)
    shards = [(root / f"shard-{number}").open("wb") for number in range(SHARDS)]
    for i in range(count):
        picture = pictures[i % len(pictures)]
        (root / "jpg" / "all" / f"chip_{i}.jpg").write_bytes(picture.encoded)
        shards[i % SHARDS].write(frame(serialise(f"chip_{i}", picture, [i % CLASSES], CLASSES)))
    for shard in shards:
        shard.close()


def _encoded(root: Path) -> Any:
    import tensorflow as tf

    paths = itertools.islice(itertools.cycle(sorted((root / "jpg" / "all").iterdir())), 2048)
    return tf.data.Dataset.from_tensor_slices([path.read_bytes() for path in paths])


def one_a_call(root: Path, size: int) -> Iterator[int]:
    """The limit, as one first writes it; no resize, no batch."""
    import tensorflow as tf

    from trainer.decoding import decode

    pictures = _encoded(root).map(decode, num_parallel_calls=machine.cores()).repeat()
    return (BATCH for _ in pictures.batch(BATCH).prefetch(tf.data.AUTOTUNE))


def chunk_a_call(root: Path, size: int) -> Iterator[int]:
    """The limit, with the overhead of a call shared by 16 images."""
    import tensorflow as tf

    from trainer.decoding import decode

    chunks = _encoded(root).batch(CHUNK, drop_remainder=True).repeat()
    pictures = chunks.map(
        lambda encoded: tf.stack([decode(each) for each in tf.unstack(encoded, CHUNK)]),
        num_parallel_calls=machine.cores(),
    )
    return (CHUNK for _ in pictures.prefetch(tf.data.AUTOTUNE))


def _canopy(root: Path, size: int) -> Iterator[Any]:
    from trainer import dataset
    from trainer.shard import Shard

    count = len(list((root / "jpg" / "all").iterdir()))
    held = [len(range(number, count, SHARDS)) for number in range(SHARDS)]
    reading = dataset.Reading(
        shards=ROUNDS_AN_EPOCH
        * tuple(Shard(str(root / f"shard-{i}"), records) for i, records in enumerate(held)),
        classes=CLASSES, image_size=size, replica_batch=BATCH, workers=1, index=0,
    )  # fmt: skip
    for epoch in itertools.count():
        yield from dataset.iterate(reading, epoch)


def canopy(root: Path, size: int) -> Iterator[int]:
    """What the training step is handed: uint8 of the size asked for, labels, weights."""
    return (len(images) for images, _, _ in _canopy(root, size))


def canopy_augmented(root: Path, size: int, kind: str) -> Iterator[int]:
    """And what the step does with it first: a flip or turn for each image, still uint8 or made float32."""
    import tensorflow as tf

    from trainer.network import augmentation

    augment = tf.function(lambda images, seed: tf.cast(augmentation.augment(images, seed), kind))
    for number, (images, _, _) in enumerate(_canopy(root, size)):
        yield len(augment(images, tf.constant([0, number])))


def generator(root: Path, size: int, **options: Any) -> Iterator[int]:
    """Keras' ImageDataGenerator."""
    import pandas as pd
    from tf_keras.preprocessing.image import ImageDataGenerator

    names = sorted(path.name for path in (root / "jpg" / "all").iterdir())
    table = pd.DataFrame({"name": names} | {f"tag{i}": 0 for i in range(CLASSES)})
    flow = ImageDataGenerator(rescale=1 / 255, **options).flow_from_dataframe(
        table, str(root / "jpg" / "all"), x_col="name", y_col=list(table.columns[1:]), class_mode="raw",
        target_size=(size, size), batch_size=BATCH, validate_filenames=False,
    )  # fmt: skip
    return (len(images) for images, _ in flow)


def from_directory(root: Path, size: int) -> Iterator[int]:
    """Keras' image_dataset_from_directory."""
    import tf_keras

    batches = tf_keras.utils.image_dataset_from_directory(
        str(root / "jpg"), labels=None, batch_size=BATCH, image_size=(size, size)
    )
    return (int(images.shape[0]) for images in batches.repeat())


CONTESTANTS: dict[str, Callable[[Path, int], Iterator[int]]] = {
    LIMITS[0]: one_a_call,
    LIMITS[1]: chunk_a_call,
    CANOPY: canopy,
    AUGMENTED: functools.partial(canopy_augmented, kind="uint8"),
    FLOATS: functools.partial(canopy_augmented, kind="float32"),
    "image_dataset_from_directory": from_directory,
    GENERATOR: generator,
    FIRST_USERS: functools.partial(generator, rotation_range=90, horizontal_flip=True, vertical_flip=True),
}


def contest(root: Path, size: int, torch_python: str, rounds: int, seconds: float) -> list[Contestant]:
    """Times all contestants at one output size."""
    me = [sys.executable, "-m", "benchmarks.input", "--root", str(root), "--sizes", str(size)]
    missing = () if importlib.util.find_spec("scipy") else GENERATORS
    found = [Contestant(what, [*me, "--one", what]) for what in CONTESTANTS if what not in missing]
    if torch_python:
        way = {"way": "input", "folder": str(root / "jpg" / "all"), "size": size, "batch": BATCH}
        found.append(torch_contestant(TORCH, torch_python, **way))
    hold(found, rounds, seconds)
    return found


def show(title: str, found: Sequence[Contestant], torch_python: str) -> None:
    """Prints the table."""
    table = Table(title=title)
    for column in ("what", "images/s", "from", "to", "of the limit", "times first user's", "CPU us/image"):
        table.add_column(column, justify="left" if column == "what" else "right")
    limit = max(each.rate for each in found if each.what in LIMITS)
    first = next((each.rate for each in found if each.what == FIRST_USERS), None)
    for each in found:
        table.add_row(
            each.what,
            *(f"{rate:,.0f}" for rate in (each.rate, min(each.rates), max(each.rates))),
            f"{each.rate / limit:.2f}",
            f"{each.rate / first:.1f}" if first else "",
            # The DataLoader's processes are others.
            "" if each.what == TORCH else f"{min(each.cpu):,.0f}",
        )
    if first is None:
        table.add_row(FIRST_USERS, "needs scipy")
    if not torch_python:
        table.add_row(TORCH, "not installed")
    Console(width=110).print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m benchmarks.input`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--chips", help="folder of JPEGs to copy (the real originals, or a sample archive)")
    parser.add_argument("--images", type=int, default=16384, help="how many copies (16384)")
    parser.add_argument(
        "--sizes", default="256,224", help="output sizes in pixels, parted by commas (256,224)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant (5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn (3)")
    parser.add_argument("--torch_python", default=sys.executable, help="an interpreter with torch and Pillow")
    parser.add_argument("--work", help="folder for the copies, removed at the end (a temporary one)")
    parser.add_argument("--root", help=argparse.SUPPRESS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    flags = parser.parse_args(argv)

    def command() -> None:
        if flags.one:
            with quiet.importing():
                import tensorflow as tf  # noqa: F401
            serve(CONTESTANTS[flags.one](Path(flags.root), int(flags.sizes)))
            return
        torch_python = torch_at(flags.torch_python)
        with tempfile.TemporaryDirectory(dir=flags.work, prefix="canopy-bench-") as folder:
            make_data(find_chips(flags.chips), flags.images, Path(folder))
            for size in map(int, flags.sizes.split(",")):
                found = contest(Path(folder), size, torch_python, flags.rounds, flags.seconds)
                show(f"Batches of {BATCH} at {size} px, {machine.cores()} cores", found, torch_python)

    return cli.run(command)


if __name__ == "__main__":
    sys.exit(main())
