"""Names and scores to the rows of a submission: which tags, in which order, and nothing left out.

Promises: pure functions; a row never has an empty tag cell; with a sample submission there is one row for
each of its names, in its order, and what had to be guessed or left out is listed.
"""

from __future__ import annotations

import io
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beam_jobs import labels
from beam_jobs.images import BAD_NAME, DUPLICATE_NAME
from beam_jobs.sources import Source, without_ending
from beam_jobs.work import Reject, utf8
from canopy import tables
from canopy.cli import UserError
from canopy.model_info import ModelInfo

COLUMNS = (labels.NAME_COLUMN, labels.TAGS_COLUMN)
ROWS_TOGETHER = 4096  # whose scores are held against the thresholds by one call
NO_IMAGE = "no_image"  # the reason listed for a name of the sample that no image has


@dataclass(frozen=True)
class Submission:
    """A submission, whole."""

    rows: list[tuple[str, str]]  # image name, tags separated by spaces
    missing: list[str]  # names of the sample without a usable image: answered with the constant tags
    extra: list[str]  # images that the sample does not name: left out


def usable_names(listing: Iterable[Source]) -> tuple[list[Source], list[Reject]]:
    """The images to score, and those whose name came before or cannot stand in a CSV."""
    kept: dict[str, Source] = {}
    rejects = []
    for source in sorted(listing, key=lambda source: source.path):
        given = source.name
        name = utf8(given)
        if not name or name != given:
            rejects.append(Reject(name, BAD_NAME, "the file's name is no UTF-8 text"))
        elif name in kept:
            first = utf8(kept[name].path)
            rejects.append(Reject(name, DUPLICATE_NAME, f"{utf8(source.path)} comes after {first}"))
        else:
            kept[name] = source
    return list(kept.values()), rejects


def tags_of(scores: NDArray[np.float32], model: ModelInfo) -> list[str]:
    """Of each image the tags whose score reaches their threshold, or else the one that comes nearest.

    Args:
        scores: float32[images, classes].
        model: whose classes and thresholds.
    """
    limits = np.asarray(model.thresholds, np.float64)
    classes = np.array(model.classes, object)
    texts: dict[bytes, str] = {}  # of each answer: images are many, answers few
    tags = []
    for begin in range(0, len(scores), ROWS_TOGETHER):
        some = scores[begin : begin + ROWS_TOGETHER]
        chosen = some >= limits
        nearest = np.argmax(some / np.maximum(limits, 1e-9), axis=1)
        chosen[np.arange(len(some)), nearest] |= ~chosen.any(axis=1)
        for answer in chosen:
            key = answer.tobytes()
            if key not in texts:
                texts[key] = " ".join(classes[answer])
            tags.append(texts[key])
    return tags


def assemble(
    names: Sequence[str], scores: NDArray[np.float32], model: ModelInfo, sample: Sequence[str] | None
) -> Submission:
    """Puts the rows together.

    Args:
        names: of the images scored.
        scores: float32[images, classes], theirs.
        model: whose classes and thresholds.
        sample: the names in the order wanted; None: all images, sorted by name.
    """
    constant = " ".join(model.constant) or model.classes[0]
    scored = dict(zip(names, tags_of(scores, model), strict=True))
    wanted = sorted(names) if sample is None else sample
    meant = [name if name in scored else bare(name) for name in wanted]
    known = set(meant)
    return Submission(
        rows=[(name, scored.get(image, constant)) for name, image in zip(wanted, meant, strict=True)],
        missing=lacking(scored, wanted),
        extra=sorted(name for name in names if name not in known),
    )


def lacking(images: Container[str], sample: Iterable[str]) -> list[str]:
    """The names of a sample that mean none of the images, in its order."""
    return [name for name in sample if name not in images and bare(name) not in images]


def bare(name: str) -> str:
    """A sample's name as the labels' are read: `test_1.jpg` means the image test_1."""
    return without_ending(name.strip())


def unseen(missing: Iterable[str], rejects: Sequence[Reject]) -> list[Reject]:
    """Of the sample's names without a usable image those without any, to be listed with the rejected ones."""
    listed = {reject.name for reject in rejects}
    return [
        Reject(name, NO_IMAGE, "the sample names it; its row has the constant tags")
        for name in missing
        if name not in listed and bare(name) not in listed
    ]


def read_sample(path: str) -> list[str]:
    """The names of a sample submission, in order.

    Raises:
        UserError: as `labels.rows` does; or there is no row, one without a name, or a name twice.
    """
    told = f"--sample_submission {path}"
    names: dict[str, None] = {}
    for line, (name,) in labels.rows(path, COLUMNS[:1], told):
        if not name or name in names:
            what = f"names {name!r} again" if name else "has no name"
            raise UserError(f"{told}: line {line} {what}")
        names[name] = None
    if not names:
        raise UserError(f"{told} has no row")
    return list(names)


def as_csv(rows: Iterable[tuple[str, str]]) -> bytes:
    """The content of submission.csv."""
    return tables.as_csv(COLUMNS, rows).encode()


def as_parquet(names: Sequence[str], scores: NDArray[np.float32], classes: Sequence[str]) -> bytes:
    """The content of the file of scores: image_name and one float32 column a class, sorted by name.

    Args:
        names: of the images scored.
        scores: float32[images, classes], theirs.
        classes: the tags' names.
    """
    import pandas as pd

    order = sorted(range(len(names)), key=names.__getitem__)
    table = pd.DataFrame(scores[order].reshape(len(names), len(classes)), columns=list(classes))
    table.insert(0, COLUMNS[0], pd.Series([names[i] for i in order], dtype="str"))
    out = io.BytesIO()
    # Scores hardly repeat: a dictionary of each column's would be half of the file, and most of its time.
    table.to_parquet(out, index=False, use_dictionary=False)
    return out.getvalue()
