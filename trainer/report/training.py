"""What a run wrote down while it trained, for the report's curves.

Promises: a line that is cut or foreign is passed over; of a step that a resumed run took twice, the last
counts.
"""

from __future__ import annotations

import json
import math
import os
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from trainer.files import REFUSED


@dataclass(frozen=True)
class Curves:
    """The curves of metrics.jsonl."""

    steps: list[int]  # at which the loss was noted
    losses: list[float]  # of a training step
    validated: list[int]  # steps at which the validation split was scored
    validation_losses: list[float]
    validation_f2: list[float]  # at thresholds tuned then
    epochs: int  # begun


def read(model: str) -> Curves | None:
    """Reads the metrics.jsonl beside an export.

    Args:
        model: the export folder, local or gs://.

    Returns:
        The curves; None where there is no such file to be read, or nothing in it: the export stands alone.
    """
    # Of "." no folder above can be told.
    folder = model.rstrip("/") if "://" in model else os.path.abspath(model)  # noqa: PTH100 - keeps links
    path = posixpath.join(posixpath.dirname(folder), "metrics.jsonl")
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return parse(file)
    except REFUSED:
        return None


def parse(lines: Iterable[bytes]) -> Curves | None:
    """Turns the lines of a metrics.jsonl into curves; None where they hold none."""
    losses: dict[int, float] = {}
    validations: dict[int, tuple[float, float]] = {}
    epochs = 0
    for line in lines:
        try:
            found = json.loads(line.decode("utf-8", "replace"))
            step, epoch = int(_number(found["step"])), int(_number(found.get("epoch", 0)))
            epochs = max(epochs, epoch)
            if "loss" in found:
                losses[step] = _number(found["loss"])
            if "validation" in found:
                validations[step] = (_number(found["validation"]["loss"]), _number(found["validation"]["f2"]))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            continue
    if not losses and not validations:
        return None
    steps, validated = sorted(losses), sorted(validations)
    return Curves(
        steps,
        [losses[step] for step in steps],
        validated,
        [validations[step][0] for step in validated],
        [validations[step][1] for step in validated],
        epochs,
    )


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is no number")
    return number
