"""An archive in Kaggle's layout, and what the demo checks and prepares in it.

Promises: nothing is ever written into the archive; what is missing is named in one sentence.
"""

from __future__ import annotations

import csv
import shutil
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from canopy.cli import UserError
from canopy.contract import IMAGE_ENDINGS

TRAIN, TEST = "train-jpg", "test-jpg"
LABELS, SAMPLE = "train_v2.csv", "sample_submission_v2.csv"


@dataclass(frozen=True)
class Archive:
    """An archive in Kaggle's layout."""

    images: Path  # folder of labelled images
    labels: Path  # CSV image_name,tags
    test_images: Path | None  # folder of unlabelled images, where there are any
    sample: Path | None  # the sample submission, where there is one


def open_archive(folder: Path) -> Archive:
    """Finds the parts of an archive.

    Raises:
        UserError: the folder, its images or its labels are not there or out of bounds, or a CSV is still
            packed.
    """
    try:
        return _parts(folder)
    except OSError as error:
        raise UserError(f"{error.filename or folder} cannot be looked at ({error.strerror})") from error


def _parts(folder: Path) -> Archive:
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: DATA wants one that holds {TRAIN}/ and {LABELS}")
    if not (folder / TRAIN).is_dir():
        raise UserError(f"{folder} holds no folder {TRAIN}{_packed(folder, TRAIN)}")
    if not (folder / LABELS).is_file():
        raise UserError(f"{folder} holds no {LABELS}{_packed(folder, LABELS)}")
    test, sample = folder / TEST, folder / SAMPLE
    if not sample.is_file() and (hint := _packed(folder, SAMPLE)):  # without it rows may be lacking
        raise UserError(f"{folder} holds no {SAMPLE}{hint}")
    return Archive(
        folder / TRAIN,
        folder / LABELS,
        test if images_in(test) else None,
        sample if sample.is_file() else None,
    )


def _packed(folder: Path, name: str) -> str:
    """What to do where `name` is there as Kaggle hands it out."""
    found = sorted(folder.glob(f"{name}*.tar*")) + sorted(folder.glob(f"{name}*.zip"))
    return f"; {found[0].name} has to be unpacked there first" if found else ""


def smallest_side(folder: Path) -> int:
    """The smaller side, in pixels, of the first image that Pillow can open; only headers are read.

    Raises:
        UserError: it can open none.
    """
    for path in images_in(folder):
        try:
            with Image.open(path) as image:
                return min(image.size)
        except (OSError, ValueError, Image.DecompressionBombError):
            continue
    raise UserError(f"{folder} holds no image that can be opened")


def images_in(folder: Path) -> list[Path]:
    """The images of a folder and of those below it, sorted by path; none where the folder is not there."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_ENDINGS and path.is_file())
    return sorted(found, key=str)


def copy_images(names: Iterable[str], source: Path, target: Path) -> None:
    """Makes `target` hold exactly the images of these names, as links where the disk allows it.

    Args:
        names: without folder and ending, accents composed, as records hold them.
        source: a folder of images; where two have the same name, the first by its path counts.
        target: in a folder that is there; replaced where it exists.
    """
    if target.exists():
        shutil.rmtree(target)
    target.mkdir()
    left = set(names)
    for path in images_in(source):
        name = unicodedata.normalize("NFC", path.stem)
        if name in left:
            left.remove(name)
            try:
                (target / path.name).hardlink_to(path)
            except OSError:
                shutil.copyfile(path, target / path.name)


def read_column(path: Path, column: str) -> list[str]:
    """One column of a CSV, in order.

    Raises:
        UserError: the file or the column is not there, or it cannot be read, or it is no CSV.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if column not in (reader.fieldnames or ()):
                raise UserError(f"{path} has no column {column}")
            return [row[column] or "" for row in reader]
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV in UTF-8 ({error})") from error


def check_submission(path: Path, names: list[str], tags: Iterable[str]) -> int:
    """Checks a submission: these names in this order, and in each row at least one tag, all known.

    Args:
        path: the CSV.
        names: the sample's, in order.
        tags: the vocabulary.

    Returns:
        The number of rows.

    Raises:
        UserError: the first thing that is wrong, with its row.
    """
    found, known = read_column(path, "image_name"), set(tags)
    if len(found) != len(names):
        raise UserError(f"{path} has {len(found):,} rows where {len(names):,} are wanted")
    for number, (name, wanted) in enumerate(zip(found, names, strict=True), start=2):
        if name != wanted:
            raise UserError(f"{path}, line {number}: {name!r} where {wanted!r} is wanted")
    for number, cell in enumerate(read_column(path, "tags"), start=2):
        if not cell.split() or not set(cell.split()) <= known:
            raise UserError(f"{path}, line {number}: {cell!r} is not a list of known tags")
    return len(found)
