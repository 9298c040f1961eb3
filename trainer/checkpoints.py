"""Checkpoints of the whole training state, written by the chief, read by all.

Promises: a checkpoint is whole or not seen (it is renamed into place), two are kept, a damaged one is passed
over for the one before it; and a run finds its own: another data set or other settings are refused.
"""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from canopy.cli import UserError
from trainer.config import Config, differences

log = logging.getLogger("canopy")
LocalValue = Callable[[Any], npt.NDArray[Any]]

# What reading a cut, overwritten or foreign file raises, from the disk up to NumPy.
DAMAGED = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, tf.errors.OpError)
KEPT = 2  # the newest may be damaged by whatever ended the run
RUN_JSON = "run.json"


def claim_model_dir(config: Config, fingerprint: str, is_chief: bool) -> None:
    """Makes `model_dir` this run's, or finds that it already is.

    Args:
        config: the run's settings.
        fingerprint: of the data set.
        is_chief: the chief alone writes; the others only compare.

    Raises:
        UserError: where model_dir holds a run of other data or settings and `--restart` is not given.
    """
    path = f"{config.model_dir}/{RUN_JSON}"
    if config.restart and is_chief:
        for name in (RUN_JSON, "metrics.jsonl"):
            if tf.io.gfile.exists(f"{config.model_dir}/{name}"):
                tf.io.gfile.remove(f"{config.model_dir}/{name}")
        for name in ("checkpoints", "export", "logs"):
            if tf.io.gfile.exists(f"{config.model_dir}/{name}"):
                tf.io.gfile.rmtree(f"{config.model_dir}/{name}")
    if not config.restart and tf.io.gfile.exists(path):
        earlier = _read_run(path)
        found = differences(config, earlier["config"])
        if earlier["fingerprint"] != fingerprint:
            found.insert(0, f"data: fingerprint was {earlier['fingerprint'][:12]}, is {fingerprint[:12]}")
        if found:
            raise UserError(
                f"{config.model_dir} holds a run that this one cannot resume ({'; '.join(found)}): "
                "take another --model_dir, or begin anew with --restart"
            )
    elif is_chief:
        write_text(
            path, json.dumps({"config": dataclasses.asdict(config), "fingerprint": fingerprint}, indent=1)
        )


def write_text(path: str, text: str) -> None:
    """Writes a file whole or not at all; its folder is made. `path` may be local or gs://."""
    tf.io.gfile.makedirs(path.rpartition("/")[0])
    with tf.io.gfile.GFile(f"{path}.tmp", "w") as file:
        file.write(text)
    tf.io.gfile.rename(f"{path}.tmp", path, overwrite=True)


class Checkpoints:
    """Saves and restores the model, the optimizer and the step.

    A checkpoint is one NumPy archive of every variable's local value, written by the chief. Replicas hold the
    same values (BatchNormalization's after they have agreed), so no other worker has to take part, and
    none has to be there: TensorFlow's own checkpoints talk to all workers for each such variable, which
    costs seconds.
    """

    def __init__(
        self, model_dir: str, variables: Sequence[Any], local_value: LocalValue, writes: bool
    ) -> None:
        """Looks at nothing yet.

        Args:
            model_dir: where `checkpoints/` stands; every worker reads it.
            variables: of model and optimizer, in an order that is the same in every process.
            local_value: gives this worker's value of a variable.
            writes: whether this worker is the chief.
        """
        self._variables, self._local_value, self._writes = list(variables), local_value, writes
        self._folder = f"{model_dir}/checkpoints"

    def restore(self) -> int:
        """Takes up the newest checkpoint that is sound and returns its step, 0 where there is none."""
        for step in sorted(self._steps(), reverse=True):
            try:
                self._load(self._path(step))
            except DAMAGED as error:
                log.warning("%s is damaged (%s): taking the one before it", self._path(step), error)
                continue
            return step
        return 0

    def save(self, step: int) -> None:
        """Saves the state after `step` steps, whole or not at all, and drops all but the newest two."""
        if not self._writes:
            return
        out = io.BytesIO()
        np.savez(out, *map(self._local_value, self._variables))
        tf.io.gfile.makedirs(self._folder)
        with tf.io.gfile.GFile(f"{self._folder}/partial", "wb") as file:
            file.write(out.getvalue())
        tf.io.gfile.rename(f"{self._folder}/partial", self._path(step), overwrite=True)
        for old in sorted(self._steps())[:-KEPT]:
            tf.io.gfile.remove(self._path(old))

    def _load(self, path: str) -> None:
        with (
            tf.io.gfile.GFile(path, "rb") as file,
            np.load(io.BytesIO(file.read()), allow_pickle=False) as found,
        ):
            # All are read, and so checked, before the first is assigned.
            values = [found[f"arr_{i}"] for i in range(len(self._variables))]
        for variable, value in zip(self._variables, values, strict=True):
            if tuple(variable.shape) != value.shape:
                raise ValueError(
                    f"{variable.name} has shape {tuple(variable.shape)} and there is {value.shape}"
                )
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)

    def _path(self, step: int) -> str:
        return f"{self._folder}/step-{step:08d}.npz"

    def _steps(self) -> list[int]:
        if not tf.io.gfile.exists(self._folder):
            return []
        found = (re.fullmatch(r"step-(\d+)\.npz", name) for name in tf.io.gfile.listdir(self._folder))
        return [int(match.group(1)) for match in found if match]


def _read_run(path: str) -> dict[str, Any]:
    with tf.io.gfile.GFile(path) as file:
        try:
            found: dict[str, Any] = json.loads(file.read())
            return {"config": dict(found["config"]), "fingerprint": str(found["fingerprint"])}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} cannot be understood ({error!r}): begin anew with --restart") from error
