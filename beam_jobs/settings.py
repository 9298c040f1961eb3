"""Preprocessing's settings, and the flags that make them.

Promises: a wrong flag is one clear sentence (`UserError`), a misspelt one too: what neither Canopy nor Beam
knows is refused, not passed over.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from beam_jobs import storage
from beam_jobs.images import DEFAULT_MAX_PIXELS, SUBSAMPLING, Encoding
from canopy.cli import Parser, UserError

DATASET_PATTERN = re.compile(r"[a-z][a-z0-9_]*")  # TensorFlow Datasets takes no other
SPLIT_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
MAX_SHARDS = 99_999  # five digits in a shard's name


@dataclass(frozen=True)
class Settings:
    """All that decides the output, and nothing that does not (workers, runner)."""

    images: tuple[str, ...]  # folders, globs, archives
    labels: str  # CSV with image_name,tags
    output: str  # folder or address
    dataset: str  # the files' first word
    splits: tuple[tuple[str, float], ...]  # name and fraction; fractions add up to 1
    seed: int  # of split and order
    vocabulary: str | None  # file of tags in order; None: the CSV's, sorted
    num_shards: int | None  # of the main split; None: by shard_mb
    shard_mb: float  # size of a shard, 10^6 bytes, which some exceed by a few percent
    encoding: Encoding  # how records hold their pictures
    max_bad_fraction: float  # of rejected images among the found, above which the job fails
    overwrite: bool  # replace a whole data set

    @property
    def main_split(self) -> str:
        """The split that statistics are of: `train`, or the first."""
        names = [name for name, _ in self.splits]
        return "train" if "train" in names else names[0]


def whole_number(most: int | None = None) -> Callable[[str], int]:
    """A flag's type: an integer from 1 on, to `most` where it is given."""

    def parse(text: str) -> int:
        value = int(text)
        if value < 1 or (most is not None and value > most):
            wanted = "at least 1" if most is None else f"from 1 to {most}"
            raise argparse.ArgumentTypeError(f"{value} is not {wanted}")
        return value

    parse.__name__ = "int"  # in argparse's own messages
    return parse


def pixels(text: str) -> int:
    """A flag's type: a side in pixels, or 0 for none."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is below 0")
    return value


def positive(text: str) -> float:
    """A flag's type: a finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def fraction(text: str) -> float:
    """A flag's type: a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return value


def exceeds(count: int, total: int, allowed: float) -> bool:
    """Whether more are affected than a flag of type `fraction` allows.

    The quotient is rounded as the flag's value was: 29 of 100 are 0.29, where 0.29 * 100 is less than 29.
    """
    return count > 0 and count / total > allowed


def splits(text: str) -> tuple[tuple[str, float], ...]:
    """A flag's type: `train=0.9,validation=0.1`."""
    result: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or not SPLIT_PATTERN.fullmatch(name):
            raise argparse.ArgumentTypeError(f"{part!r} is not like train=0.9")
        if name in result:
            raise argparse.ArgumentTypeError(f"the split {name} comes twice")
        if name == "all":
            raise argparse.ArgumentTypeError(
                "TensorFlow Datasets keeps the name 'all' for all splits together"
            )
        result[name] = positive(value)
    if abs(sum(result.values()) - 1) > 1e-6:
        raise argparse.ArgumentTypeError(f"the fractions add up to {sum(result.values()):g}, not to 1")
    return tuple(result.items())


def optional(text: str) -> str | None:
    """A flag's type: a file, or `none`: a manifest can fill in a value but not leave a flag out."""
    return None if text == "none" else text


def switch(text: str) -> bool:
    """A flag's type: `true` or `false`; without a value it is on."""
    if text not in {"true", "false"}:
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false")
    return text == "true"


def dataset_name(text: str) -> str:
    """A flag's type: a data set's name."""
    if not DATASET_PATTERN.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not small letters, digits and _ (a letter first)")
    return text


def add_images(parser: Parser) -> None:
    """Where images come from: preprocessing and prediction take the same."""
    parser.add_argument(
        "--images",
        action="append",
        required=True,
        metavar="PATH",
        help="folder, glob, .zip, .tar or packed tar (.tar.gz, .tar.bz2, .tar.xz, .tar.zst), or a folder of "
        "such an archive (archive.zip/folder), local, gs:// or s3://; may be given more than once",
    )


def image_paths(given: Sequence[str]) -> tuple[str, ...]:
    """What `--images` names, from the root; an empty value would be the working folder."""
    if "" in given:
        raise UserError("--images is empty")
    return tuple(map(storage.absolute, given))


def add_limits(parser: Parser) -> None:
    """Which images are rejected, and how many may be: the same for both as well."""
    parser.add_argument(
        "--max_pixels",
        type=whole_number(),
        default=DEFAULT_MAX_PIXELS,
        help="width times height above which an image is rejected by its header",
    )
    parser.add_argument(
        "--max_bad_fraction",
        type=fraction,
        default=0.01,
        help="share of the images, 0 to 1, that may be rejected; with more the job fails",
    )


def make_parser() -> Parser:
    """The flags of `beam_jobs.preprocess` itself."""
    parser = Parser(
        "python -m beam_jobs.preprocess",
        "Converts an archive of JPEGs and a CSV of tags to sharded TFRecords. Every option of Apache Beam "
        "(--runner, --direct_running_mode, --direct_num_workers, ...) may be given as well.",
    )
    add = parser.add_argument
    add_images(parser)
    add(
        "--labels",
        required=True,
        metavar="FILE",
        help="CSV, plain, packed (.gz, .bz2, .xz) or in an archive (archive.zip/tags.csv), with the columns "
        "image_name (without a folder) and tags (parted by spaces)",
    )
    add("--output", required=True, metavar="FOLDER", help="folder for the records, local, gs:// or s3://")
    add("--dataset", type=dataset_name, default="planet", help="the data set's name, first word of its files")
    add("--splits", type=splits, default="train=0.9,validation=0.1", help="splits and their shares, in all 1")
    add("--seed", type=int, default=0, help="decides split and order, together with an image's name")
    add(
        "--vocabulary",
        type=optional,
        metavar="FILE",
        help="the tags in the order of their class ids, one a line; none: the CSV's tags, sorted",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--num_shards",
        type=whole_number(MAX_SHARDS),
        metavar="N",
        help="shards of the train split; the others get theirs in proportion",
    )
    size.add_argument(
        "--shard_mb",
        type=positive,
        default=128.0,
        help="largest size of a shard in MB, give or take a few percent, or more where images differ much",
    )
    add(
        "--image_format",
        choices=["jpeg", "png", "keep"],
        default="jpeg",
        help="re-encode as JPEG or PNG, or keep the archive's own bytes, mended where decoders err",
    )
    add("--jpeg_quality", type=whole_number(100), default=95, help="of the JPEGs written, 1 to 100")
    add(
        "--chroma",
        choices=sorted(SUBSAMPLING),
        default="420",
        help="colour of the JPEGs written: half (420) or full (444) resolution",
    )
    add(
        "--max_side",
        type=pixels,
        default=0,
        metavar="PIXELS",
        help="shrink pictures with a longer side to this; 0: store each in its own size",
    )
    add_limits(parser)
    add(
        "--overwrite",
        type=switch,
        nargs="?",
        const=True,
        default=False,
        metavar="true|false",
        help="replace the data set that the output folder holds",
    )
    return parser  # fmt: skip


def parse(argv: Sequence[str] | None) -> tuple[Settings, list[str]]:
    """Reads the command line.

    Returns:
        The settings, and the arguments left for Beam.

    Raises:
        UserError: a flag is missing or has a value that makes no sense.
    """
    flags, rest = make_parser().parse_known_args(argv)
    for flag in ("labels", "output", "vocabulary"):
        if getattr(flags, flag) == "":
            raise UserError(f"--{flag} is empty")
    if flags.max_side and flags.image_format == "keep":
        raise UserError("--max_side shrinks pictures, and --image_format keep stores the archive's own bytes")
    encoding = Encoding(
        flags.image_format, flags.jpeg_quality, flags.chroma, flags.max_pixels, flags.max_side
    )
    settings = Settings(
        images=image_paths(flags.images),
        labels=flags.labels,
        output=storage.absolute(flags.output),
        dataset=flags.dataset,
        splits=flags.splits,
        seed=flags.seed,
        vocabulary=flags.vocabulary,
        num_shards=flags.num_shards,
        shard_mb=flags.shard_mb,
        encoding=encoding,
        max_bad_fraction=flags.max_bad_fraction,
        overwrite=flags.overwrite,
    )
    return settings, rest
