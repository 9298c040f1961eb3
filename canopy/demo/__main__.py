"""`python -m canopy.demo`: archive, records, model, report, submission, and a table of it all.

Promises: each stage is a command of its own, printed before it runs; the first that fails ends the demo with
its exit code; Ctrl-C ends the stage first, in its own way; run again, it does everything again.
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from canopy import children, cli, machine, tables
from canopy.cli import UserError
from canopy.demo import layout
from canopy.demo.layout import Archive
from canopy.demo.table import Stage, print_summary

WORKERS = 2  # training processes: what makes it distributed
PASSES = 10_000  # images trained on: a minute on two cores at 96 pixels
MOST_EPOCHS = 30
SMALL = 500  # records below which a global batch of 64 leaves too few steps
LABELLED, UNLABELLED = 1_200, 300  # images of the sample archive
GRACE_SECONDS = 15.0  # that an interrupted stage has to end by itself


@dataclass(frozen=True)
class Settings:
    """The demo's settings."""

    data: Path | None  # an archive in Kaggle's layout; None: the sample archive
    output: Path  # folder for everything that is made
    weights: str | None  # .h5 file, imagenet or none; None: ImageNet's where they can be fetched
    epochs: int | None  # None: so many that training sees some PASSES images
    image_size: int | None  # pixels; None: 96, or 64 for chips of 32 pixels and less


class _StageError(Exception):
    """A stage failed; it has said why."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demo and returns the exit code of the first stage that failed."""
    try:
        return cli.run(lambda: _demo(_parse(argv)))
    except _StageError as failed:
        return failed.code


def _parse(argv: Sequence[str] | None) -> Settings:
    parser = cli.Parser("python -m canopy.demo", "Walks through every stage, from archive to submission.")
    parser.add_argument(
        "--data",
        type=cli.path,
        metavar="FOLDER",
        help=f"your archive: {layout.TRAIN}/ and {layout.LABELS}, and if you have them {layout.TEST}/ and "
        f"{layout.SAMPLE} (default: a sample archive is drawn)",
    )
    parser.add_argument(
        "--output",
        type=cli.path,
        metavar="FOLDER",
        help="default: build/demo, or build/demo-NAME of your archive",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="start of the backbone: an .h5 file, imagenet or none (default: ImageNet's where they can be "
        "fetched, else random)",
    )
    parser.add_argument("--epochs", type=int, help=f"default: such that training sees some {PASSES:,} images")
    parser.add_argument(
        "--image_size", type=int, help="side in pixels for training (default: 96, or 64 for small chips)"
    )
    flags = parser.parse_args(argv)
    for flag in ("epochs", "image_size"):
        value = getattr(flags, flag)
        if value is not None and value < 1:
            raise UserError(f"--{flag} {value} is not at least 1")
    if flags.weights not in (None, "imagenet", "none") and not Path(flags.weights).is_file():
        raise UserError(f"--weights {flags.weights}: there is no such file")
    if flags.data is not None:
        flags.data = flags.data.resolve()
    name = "demo" if flags.data is None else f"demo-{flags.data.name}"
    flags.output = flags.output or Path("build") / name
    return Settings(**vars(flags))


def _demo(settings: Settings) -> None:
    output, stages = settings.output, []
    archive_folder = settings.data or output / "archive"
    if settings.data is None:
        counts = ["--labelled", str(LABELLED), "--unlabelled", str(UNLABELLED)]
        seconds = _run("canopy.sample", "--output", str(archive_folder), *counts)
        stages.append(Stage("sample", LABELLED + UNLABELLED, seconds))
    archive = layout.open_archive(archive_folder)
    size = settings.image_size or (64 if layout.smallest_side(archive.images) <= 32 else 96)

    records = output / "tfrecords"
    seconds = _run(
        "beam_jobs.preprocess",
        *("--images", str(archive.images), "--labels", str(archive.labels), "--output", str(records)),
        *("--splits", "train=0.8,validation=0.2", "--overwrite"),
    )
    data = json.loads((records / "canopy.json").read_text(encoding="utf-8"))
    stages.append(Stage("preprocess", data["images"]["found"], seconds))

    training = data["splits"]["train"]["records"]
    epochs = settings.epochs or min(MOST_EPOCHS, max(1, round(PASSES / max(1, training))))
    model = output / "model"
    seconds = _run(
        "trainer.launch",
        *("--local_workers", str(WORKERS), "--", "--data", str(records), "--model_dir", str(model)),
        *("--image_size", str(size), "--epochs", str(epochs), "--weights", _weights(settings, size)),
        *("--batch_size", str(64 if training >= SMALL else 16), "--restart"),
    )
    stages.append(Stage("train", training * epochs, seconds))

    export, report = model / "export", output / "report"
    seconds = _run(
        "trainer.evaluate", "--model", str(export), "--data", str(records), "--output", str(report)
    )
    metrics = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    stages.append(Stage("evaluate", metrics["records"], seconds))

    submission, images, sample = output / "submission.csv", archive.test_images, archive.sample
    if images is None:
        images, sample = _validation_images(archive, report, output)
    flags = ["--sample_submission", str(sample), "--max_missing_fraction", "1"] if sample else []
    seconds = _run(
        "beam_jobs.predict",
        *("--model", str(export), "--images", str(images), "--output", str(submission), *flags),
    )
    stages.append(Stage("predict", len(layout.images_in(images)), seconds))
    names = layout.read_column(sample or submission, "image_name")
    rows = layout.check_submission(submission, names, data["vocabulary"])
    against = f", the names and order of {sample.name}" if sample else ""

    paths = {"archive": archive_folder, "records": records, "model": export, "report": report / "report.html"}
    print_summary(stages, data, metrics, {**paths, f"submission ({rows:,} rows{against})": submission})


def _run(module: str, *flags: str) -> float:
    """Runs a command as a user would, and returns its wall time in seconds."""
    words = ["python", "-m", module, *flags]
    print(f"\n$ {shlex.join(words)}", flush=True)
    start, kills = time.monotonic(), machine.kills_for_memory()
    code = _wait(subprocess.Popen([sys.executable, *words[1:]]))
    if code < 0:
        print(f"error: {module} was ended by {children.told(code, kills)}", file=sys.stderr, flush=True)
    if code:
        raise _StageError(code if code > 0 else 128 - code)
    return time.monotonic() - start


def _wait(stage: subprocess.Popen[bytes]) -> int:
    """Waits for a stage. A terminal sends Ctrl-C to it as well: it must not be killed while it tidies up."""
    try:
        return stage.wait()
    except KeyboardInterrupt:
        for end in (None, signal.SIGTERM, signal.SIGKILL):
            if end is not None:
                stage.send_signal(end)
            try:
                stage.wait(GRACE_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
        raise


def _weights(settings: Settings, size: int) -> str:
    """What the backbone starts from; says so where it is not what one would wish."""
    if settings.weights not in (None, "imagenet"):
        return settings.weights
    fetched = subprocess.run(
        [sys.executable, "-m", "trainer.weights", "--image_size", str(size)],
        capture_output=True,
        text=True,
        check=False,
    )
    if fetched.returncode == 0:
        return fetched.stdout.strip()
    print(f"\nweights: {fetched.stderr.strip().removeprefix('error: ')}", flush=True)
    print(
        "weights: training starts from random weights; make demo WEIGHTS=FILE starts from a file", flush=True
    )
    return "none"


def _validation_images(archive: Archive, report: Path, output: Path) -> tuple[Path, Path]:
    """Stands in for the test images where an archive has none."""
    print(
        f"\npredict: the archive holds no images in {layout.TEST}, so the validation images are predicted",
        flush=True,
    )
    names = layout.read_column(report / "predictions.csv", "image_name")
    folder, sample = output / "validation-jpg", output / "validation_sample.csv"
    layout.copy_images(names, archive.images, folder)
    rows = [(name, "") for name in sorted(names)]
    sample.write_text(tables.as_csv(("image_name", "tags"), rows), encoding="utf-8", newline="")
    return folder, sample


if __name__ == "__main__":
    sys.exit(main())
