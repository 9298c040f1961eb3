"""What a run writes down as it goes: metrics.jsonl and TensorBoard's logs.

Promises: one JSON object a line, each line written and closed at once, so that a killed run loses none; the
chief alone writes.
"""

from __future__ import annotations

import json
from typing import Any

import tensorflow as tf

from trainer.config import Config


class Journal:
    """metrics.jsonl and TensorBoard's logs, written by the chief alone."""

    def __init__(self, config: Config, is_chief: bool) -> None:
        self._path, self._active = f"{config.model_dir}/metrics.jsonl", is_chief
        self._board = tf.summary.create_file_writer(f"{config.model_dir}/logs") if is_chief else None

    def __enter__(self) -> Journal:
        return self

    def write(self, line: dict[str, Any]) -> None:
        """Appends a line and plots its numbers."""
        if self._board is None:
            return
        with tf.io.gfile.GFile(self._path, "a") as file:
            file.write(json.dumps(line) + "\n")
        with self._board.as_default(step=line["step"]):
            plotted = {**line, **{f"validation/{k}": v for k, v in line.get("validation", {}).items()}}
            for name, value in plotted.items():
                if isinstance(value, float):
                    tf.summary.scalar(name, value)

    def lacks_validation(self, step: int) -> bool:
        """Whether no line yet tells the metrics after `step`; on the chief alone."""
        if self._board is None or not tf.io.gfile.exists(self._path):
            return self._board is not None
        with tf.io.gfile.GFile(self._path, "rb") as file:
            lines = file.read().decode("utf-8", "replace").splitlines()
        return not any(_tells_validation(line, step) for line in lines)

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()


def _tells_validation(line: str, step: int) -> bool:
    """Whether a line, which may be cut, holds the metrics after `step`."""
    try:
        found = json.loads(line)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("step") == step and "validation" in found
