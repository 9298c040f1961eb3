"""What an export's `model.json` says, read in one place for prediction and the report.

Promises: what comes out is consistent (a threshold for each class, constant tags that are classes); a file
that is missing, damaged or of a newer format version is one sentence. Nothing is read here: the caller, who
knows how to reach a store, hands over the bytes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

from canopy import contract
from canopy.cli import UserError


@dataclass(frozen=True)
class ModelInfo:
    """An export's description."""

    folder: str  # the export, local or an address
    classes: tuple[str, ...]  # names in the order of the scores
    thresholds: tuple[float, ...]  # one a class
    constant: tuple[str, ...]  # the tags that score best where nothing is known of an image
    image_size: int  # side of the pictures that the network looks at, pixels
    document: dict[str, Any] = field(hash=False)  # the whole file, for the report

    @property
    def least_side(self) -> int:
        """Side down to which a JPEG may be reduced while it is decoded, pixels; 0: it is decoded whole."""
        return self.image_size if self.document.get(contract.KEY_REDUCED) else 0


def parse(content: bytes | None, folder: str) -> ModelInfo:
    """Reads what `model.json` holds.

    Args:
        content: the file's bytes; None where the folder has no such file.
        folder: the export, for messages.

    Raises:
        UserError: there is no file, or it is damaged, or of a newer format version.
    """
    if content is None:
        raise UserError(
            f"--model {folder}: there is no {contract.MODEL_JSON}, so it is no export of the trainer, "
            "which is the folder export in a --model_dir"
        )
    try:
        found = json.loads(content)
        version = int(found["format_version"])
        if version > contract.MODEL_FORMAT_VERSION:
            raise UserError(
                f"--model {folder} has model format version {version}, and this Canopy reads up to "
                f"{contract.MODEL_FORMAT_VERSION}: upgrade Canopy or export again"
            )
        info = ModelInfo(
            folder=folder,
            classes=tuple(found["classes"]),
            thresholds=_numbers(found["thresholds"]),
            constant=tuple(found["metrics"]["constant_tags"]),
            image_size=int(found["image_size"]),
            document=found,
        )
        _check(info)
        return info
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{folder}/{contract.MODEL_JSON} cannot be understood ({error!r})") from error


def _numbers(values: list[Any]) -> tuple[float, ...]:
    numbers = tuple(map(float, values))
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a threshold is no number")
    return numbers


def _check(info: ModelInfo) -> None:
    if not info.classes or not all(isinstance(name, str) and name for name in info.classes):
        raise ValueError("classes are no names")
    if len(set(info.classes)) < len(info.classes):
        raise ValueError("a class comes twice")
    if len(info.classes) != len(info.thresholds):
        raise ValueError(f"{len(info.classes)} classes and {len(info.thresholds)} thresholds")
    if not set(info.constant) <= set(info.classes):
        raise ValueError("constant_tags are no classes")
    if info.image_size < 1:
        raise ValueError(f"image_size is {info.image_size}")
