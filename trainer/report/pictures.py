"""The report's galleries: which pictures to show, and each as bytes within the page.

Promises: a picture that no decoder takes is a gap with its name, never an error; none is over some 30 kB.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainer import metrics

GALLERY = 12  # pictures of each kind
LARGEST_SIDE = 256  # pixels: what a gallery's place shows
LARGEST_BYTES = 24_000  # above it a picture is encoded anew
QUALITY = 80  # of what is encoded anew
ALIKE = 2  # hits shown with one and the same set of tags
UNDECODABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # what Pillow raises


@dataclass(frozen=True)
class Picture:
    """One picture of a gallery."""

    name: str  # of the image
    source: str  # a data: address; "" where it cannot be shown
    f2: float  # of this row
    right: list[tuple[str, float]]  # tag and score: true and answered
    missed: list[tuple[str, float]]  # true and not answered
    wrong: list[tuple[str, float]]  # answered and not true


def galleries(
    rows: npt.NDArray[np.float64],
    scores: npt.NDArray[np.float32],
    labels: npt.NDArray[np.bool_],
) -> tuple[list[int], list[int]]:
    """Chooses the worst mistakes and the most confident hits.

    Args:
        rows: float[rows], F2 of each image.
        scores: float[rows, classes].
        labels: {0, 1}[rows, classes].

    Returns:
        Row numbers: by F2 from below, among equals the most surprising first; and of the rows with F2 1 the
        least surprising, of each set of tags at most `ALIKE`.
    """
    surprise = metrics.cross_entropy_rows(scores, labels)
    worst = [int(i) for i in np.lexsort((-surprise, rows)) if rows[i] < 1][:GALLERY]
    seen: Counter[bytes] = Counter()
    best: list[int] = []
    for i in np.argsort(surprise, kind="stable"):
        tags = labels[i].tobytes()
        if rows[i] == 1 and seen[tags] < ALIKE and len(best) < GALLERY:
            seen[tags] += 1
            best.append(int(i))
    return worst, best


def picture(
    *,
    name: str,
    encoded: bytes,
    f2: float,
    scores: npt.NDArray[np.float32],
    labels: npt.NDArray[np.bool_],
    answered: npt.NDArray[np.bool_],
    tags: Sequence[str],
) -> Picture:
    """One row as a gallery shows it; tags by score, the highest first.

    Args:
        name: of the image.
        encoded: a JPEG's or PNG's bytes.
        f2: of the row.
        scores: float[classes].
        labels: {0, 1}[classes].
        answered: {0, 1}[classes].
        tags: the class names.
    """
    order = np.argsort(-scores, kind="stable")

    def those(mask: npt.NDArray[np.bool_]) -> list[tuple[str, float]]:
        return [(tags[i], float(scores[i])) for i in order if mask[i]]

    true = labels.astype(bool)
    return Picture(
        name,
        data_address(encoded),
        f2,
        those(true & answered),
        those(true & ~answered),
        those(answered & ~true),
    )


def data_address(encoded: bytes) -> str:
    """A picture as a `data:` address, made smaller where it is large; "" where it cannot be decoded."""
    try:
        with _opened(encoded) as image:
            kind = {"JPEG": "jpeg", "PNG": "png"}.get(image.format or "", "")
            as_it_is = (
                kind
                and image.mode in ("RGB", "L")  # browsers do not agree on four components
                and max(image.size) <= LARGEST_SIDE
                and len(encoded) <= LARGEST_BYTES
            )
            if as_it_is:
                image.load()
            else:
                small = image.convert("RGB")
                small.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
                out = io.BytesIO()
                small.save(out, "JPEG", quality=QUALITY, optimize=True)
                encoded, kind = out.getvalue(), "jpeg"
    except UNDECODABLE:
        return ""
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"


def pillow_sees(encoded: bytes) -> bool:
    """Whether Pillow decodes a picture with more than one value in it."""
    try:
        with _opened(encoded) as image:
            return any(low != high for low, high in (c.getextrema() for c in image.convert("RGB").split()))
    except UNDECODABLE:
        return False


def _opened(encoded: bytes) -> Image.Image:
    """A picture of a record; Pillow would warn of scenes above 89 million pixels, which training has read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(encoded))
