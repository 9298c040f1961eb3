"""What a run writes down as it goes: metrics.jsonl and TensorBoard's logs.

Promises: one JSON object a line, each line written and closed at once, so that a killed run loses none; the
chief alone writes; a line that was cut off is gone before the next is written; thousands of tags make no line
long.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from canopy.cli import first_line
from trainer.config import Config
from trainer.files import REFUSED, is_in_store, make_folder, stand_for_folder

log = logging.getLogger("canopy")

# Of more a validation's line has no figures each: in a store every line that follows writes all of it again.
TAGS = 200
BLOCK = 1 << 16  # bytes read at once in search of a line's end: a long run's file has hundreds of megabytes


class Journal:
    """metrics.jsonl and TensorBoard's logs, written by the chief alone."""

    def __init__(self, config: Config, is_chief: bool, step: int = 0) -> None:
        """Begins or goes on with a run's.

        Args:
            config: the run's settings.
            is_chief: whether to write at all.
            step: the last one taken by earlier starts that this one does not take again.
        """
        self._path, self._logs = f"{config.model_dir}/metrics.jsonl", f"{config.model_dir}/logs"
        self._board = _board(self._logs, step) if is_chief else None
        self._is_cut = True  # whether its last line may be: an earlier start's, or one that was refused

    def __enter__(self) -> Journal:
        return self

    def write(self, line: dict[str, Any]) -> None:
        """Appends a line and plots its numbers."""
        if self._board is None:
            return
        if self._is_cut:
            _end_with_a_line(self._path)
        self._is_cut = True
        with tf.io.gfile.GFile(self._path, "a") as file:
            file.write(f"{json.dumps(_bounded(line))}\n")
        self._is_cut = False
        try:
            self._plot(line)
        except REFUSED as error:
            # A file that was open while a volume was away may be lost for good, and another one not.
            log.warning("%s: begun anew, for it cannot be written (%s)", self._logs, first_line(error))
            self._close()
            self._board = _board(self._logs, line["step"] - 1)
            self._plot(line)

    def _plot(self, line: dict[str, Any]) -> None:
        assert self._board is not None
        # As arrays: TensorFlow keeps for ever the numbers of Python's own that it is given as tensors.
        with self._board.as_default(step=np.array(line["step"])):
            plotted = {**line, **{f"validation/{k}": v for k, v in line.get("validation", {}).items()}}
            for name, value in plotted.items():
                if isinstance(value, float):
                    tf.summary.scalar(name, np.array(value))

    def lacks_validation(self, step: int) -> bool:
        """Whether no line yet tells the metrics after `step`; on the chief alone."""
        if self._board is None:
            return False
        try:
            with tf.io.gfile.GFile(self._path, "rb") as file:
                return not any(_tells_validation(line, step) for line in file)
        except REFUSED:  # there is none, or it cannot be read: then once more does no harm
            return True

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._board is not None:
            with contextlib.suppress(*REFUSED):  # what it lacks was told when it was to be plotted
                self._board.close()


def _board(folder: str, step: int) -> Any:
    """TensorBoard's writer; a storage that refuses it is warned of, and the run goes on without."""
    v1 = tf.compat.v1
    started = v1.Event(
        wall_time=time.time(), step=step + 1, session_log=v1.SessionLog(status=v1.SessionLog.START)
    )
    try:
        stand_for_folder(folder)
        make_folder(folder)
        board = tf.summary.create_file_writer(folder)
        # Only by this does TensorBoard without its data server, as on Arm, drop what an earlier start plotted
        # of steps that are taken again: its curves would go back and forth.
        tf.raw_ops.ImportEvent(writer=board._resource, event=started.SerializeToString())
        return board
    except REFUSED as error:
        log.warning("%s cannot be written (%s): TensorBoard will lack this start", folder, first_line(error))
        return tf.summary.create_noop_writer()


def _bounded(line: dict[str, Any]) -> dict[str, Any]:
    """A line without the figures of each tag where there are many; model.json has the last epoch's."""
    found = line.get("validation", {})
    if len(found.get("tags", ())) <= TAGS:
        return line
    return {**line, "validation": {key: value for key, value in found.items() if key != "tags"}}


def _end_with_a_line(path: str) -> None:
    """Takes away a line that was cut off: pandas takes no file that has one, and jq nothing behind it."""
    local = Path(path.removeprefix("file://"))
    if is_in_store(path) or not local.exists():  # an object is replaced whole, and has none
        return
    with local.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - BLOCK)
            file.seek(begin)
            whole = file.read(end - begin).rfind(b"\n") + 1
            end = begin + whole
            if whole:
                break
        file.truncate(end)


def _tells_validation(line: bytes, step: int) -> bool:
    """Whether a line, which may be cut, holds the metrics after `step`."""
    if b'"validation"' not in line:  # as nearly all: said in a tenth of the time that JSON takes
        return False
    try:
        found = json.loads(line)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("step") == step and "validation" in found
