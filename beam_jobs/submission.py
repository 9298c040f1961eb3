"""Scores to the rows of a submission: which tags, in which order, and nothing left out.

Promises: pure functions; a row never has an empty tag cell; with a sample submission there is one row for
each of its names, in its order, and what had to be guessed or left out is listed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beam_jobs import storage
from beam_jobs.scoring import ModelInfo
from canopy.cli import UserError

COLUMNS = ("image_name", "tags")


@dataclass(frozen=True)
class Submission:
    """A submission, whole."""

    rows: list[tuple[str, str]]  # image name, tags separated by spaces
    missing: list[str]  # names of the sample without a usable image: answered with the constant tags
    extra: list[str]  # images that the sample does not name: left out


def tags_of(scores: NDArray[np.float32], model: ModelInfo) -> str:
    """The tags whose score reaches their threshold, or else the one that comes nearest.

    Args:
        scores: float32[classes].
        model: whose classes and thresholds.
    """
    limits = np.asarray(model.thresholds, np.float64)
    chosen = np.flatnonzero(scores >= limits)
    if not chosen.size:
        chosen = np.array([np.argmax(scores / np.maximum(limits, 1e-9))])
    return " ".join(model.classes[i] for i in chosen)


def assemble(
    scored: Mapping[str, NDArray[np.float32]], model: ModelInfo, sample: Sequence[str] | None
) -> Submission:
    """Puts the rows together.

    Args:
        scored: float32[classes] for each image.
        model: whose classes and thresholds.
        sample: the names in the order wanted; None: all images, sorted by name.
    """
    constant = " ".join(model.constant) or model.classes[0]
    names = sorted(scored) if sample is None else sample
    rows = [(name, tags_of(scored[name], model) if name in scored else constant) for name in names]
    wanted = set(names)
    return Submission(
        rows=rows,
        missing=[name for name in names if name not in scored],
        extra=sorted(name for name in scored if name not in wanted),
    )


def read_sample(path: str) -> list[str]:
    """The names of a sample submission, in order.

    Raises:
        UserError: it is not there, has no column image_name, no row, or a name twice.
    """
    try:
        text = storage.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"--sample_submission {path} is not UTF-8 text ({error})") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if COLUMNS[0] not in (reader.fieldnames or ()):
        raise UserError(f"--sample_submission {path} has no column {COLUMNS[0]}")
    names: list[str] = []
    seen: set[str] = set()
    for row in reader:
        name = row[COLUMNS[0]] or ""
        if not name or name in seen:
            what = f"names {name} twice" if name else "has no name"
            raise UserError(f"--sample_submission {path}: line {reader.line_num} {what}")
        seen.add(name)
        names.append(name)
    if not names:
        raise UserError(f"--sample_submission {path} has no row")
    return names


def as_csv(rows: Iterable[tuple[str, str]]) -> bytes:
    """The content of submission.csv."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return out.getvalue().encode("utf-8", "surrogateescape")
