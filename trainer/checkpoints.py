"""Checkpoints of the whole training state, written by all workers, kept by the chief.

Promises: a checkpoint is whole or not seen (TensorFlow renames it into place and then names it), two are
kept, and a run finds its own: another data set or other settings are refused, never mixed.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from typing import Any

import tensorflow as tf

from canopy.cli import UserError
from trainer.config import Config, differences

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
    """Saves and restores the model, the optimizer and the step."""

    def __init__(self, model_dir: str, model: Any, optimizer: Any, is_chief: bool) -> None:
        """Call in the strategy's scope, with the optimizer built.

        Args:
            model_dir: where `checkpoints/` stands; every worker reads it.
            model: whose variables to keep.
            optimizer: likewise, iterations included.
            is_chief: the other workers take part in each save, as the strategy demands, but keep nothing.
        """
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self._state = tf.train.Checkpoint(model=model, optimizer=optimizer, step=self._step)
        self._folder = f"{model_dir}/checkpoints"
        self._scratch = None if is_chief else tempfile.mkdtemp(prefix="canopy-worker-")
        self._manager = tf.train.CheckpointManager(
            self._state, self._scratch or self._folder, max_to_keep=KEPT
        )

    def restore(self) -> int:
        """Takes up the newest checkpoint and returns its step, 0 where there is none."""
        newest = tf.train.latest_checkpoint(self._folder)
        if newest is None:
            return 0
        self._state.restore(newest).assert_existing_objects_matched()
        return int(self._step.numpy())

    def save(self, step: int) -> None:
        """Saves the state after `step` steps; every worker has to call it."""
        self._step.assign(step)
        self._manager.save(checkpoint_number=step)

    def close(self) -> None:
        """Removes what a worker other than the chief wrote."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)


def _read_run(path: str) -> dict[str, Any]:
    with tf.io.gfile.GFile(path) as file:
        try:
            found: dict[str, Any] = json.loads(file.read())
            return {"config": dict(found["config"]), "fingerprint": str(found["fingerprint"])}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} cannot be understood ({error!r}): begin anew with --restart") from error
