"""Prediction's settings, and the flags that make them.

Promises: a wrong flag is one clear sentence (`UserError`), a misspelt one too; paths of this machine are
absolute, so that workers that start elsewhere find them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from beam_jobs import settings, storage
from beam_jobs.scoring import engines, scorer
from canopy.cli import Parser, UserError

WRITTEN = ("output", "scores")  # flags that name a file to write


@dataclass(frozen=True)
class Settings:
    """What the flags say."""

    model: str  # the export
    images: tuple[str, ...]  # folders, globs, archives
    output: str  # the CSV to write
    sample_submission: str | None  # order and completeness
    scores: str | None  # Parquet file for all scores
    tta: int  # views averaged: 1 or 8
    engine: str  # one of engines.CHOICES
    max_pixels: int  # above which an image is rejected by its header
    max_bad_fraction: float  # of rejected images among the found
    max_missing_fraction: float  # of the sample's names without a usable image
    max_extra_fraction: float  # of images that the sample does not name


def parse(argv: Sequence[str] | None) -> tuple[Settings, list[str]]:
    """Reads the flags; what is left is for Beam."""
    parser = Parser(
        "python -m beam_jobs.predict",
        "Writes a submission for an archive of JPEGs. Every option of Apache Beam may be given as well.",
    )
    add = parser.add_argument
    add("--model", required=True, metavar="FOLDER", help="the trainer's export, local, gs:// or s3://")
    settings.add_images(parser)
    add("--output", required=True, metavar="FILE", help="the CSV to write, local, gs:// or s3://")
    add(
        "--sample_submission",
        type=settings.optional,
        metavar="FILE",
        help="CSV, packed or not, whose names, in their order, the rows shall have; none: the images' names, "
        "sorted",
    )
    add(
        "--scores",
        type=settings.optional,
        metavar="FILE",
        help="Parquet file to write with all scores; none: no such file",
    )
    add(
        "--tta",
        type=int,
        choices=scorer.TTA_VIEWS,
        default=1,
        help="8: average over all flips and quarter turns",
    )
    add(
        "--engine",
        choices=engines.CHOICES,
        default=engines.AUTO,
        help="what computes: TensorFlow Lite, or the SavedModel, which auto takes where there is a GPU",
    )
    settings.add_limits(parser)
    add(
        "--max_missing_fraction",
        type=settings.fraction,
        default=0.01,
        help="share of the sample's names, 0 to 1, that may have no usable image; with more the job fails",
    )
    add(
        "--max_extra_fraction",
        type=settings.fraction,
        default=1.0,
        help="share of the images, 0 to 1, that the sample may leave unnamed; with more the job fails",
    )
    flags, rest = parser.parse_known_args(argv)
    for flag in ("model", "output", "sample_submission", "scores"):
        value = getattr(flags, flag)
        if value == "":
            raise UserError(f"--{flag} is empty")
        if value and flag in WRITTEN and _is_folder(value):
            raise UserError(f"--{flag}: {value} names a folder, and a file is to be written there")
        setattr(flags, flag, value and storage.absolute(value))
    flags.images = settings.image_paths(flags.images)
    return Settings(**vars(flags)), rest


def _is_folder(path: str) -> bool:
    """Whether a path's spelling alone says so: a store takes `gs://bucket/out/` for an object's name."""
    return path.endswith("/") or (storage.is_remote(path) and path.count("/") < 3)
