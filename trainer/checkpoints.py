"""Checkpoints of the whole training state, written by the chief, read by all.

Promises: a checkpoint is whole or not seen (it is renamed into place), two are kept, a damaged one is passed
over for the one before it, one of another run is never taken up, all workers take up the same one, and NaN or
infinity is never saved.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from canopy import shared_disk
from canopy.cli import PeerLostError, UserError, first_line
from trainer.files import REFUSED, delete, make_folder, read, refusal
from trainer.local import Local

log = logging.getLogger("canopy")
Gather = Callable[[int], Sequence[int]]

# What reading a cut, overwritten or foreign file raises, from the disk up to NumPy.
DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    RuntimeError,  # of zipfile: a bit that says encrypted, or of a method or version that there is not
    zipfile.BadZipFile,
    zlib.error,
    tf.errors.OpError,
)
KEPT = 2  # the newest may be damaged by whatever ended the run
REFUSALS = 3  # failures to save in a row that end a run
FORMAT_VERSION = 1  # of a checkpoint: a newer one is refused
# Advice where a loss or a weight is no number: a run goes on only with the settings that it began with.
NOT_FINITE = (
    "what was saved before it stands: begin anew with a smaller --learning_rate, and with --restart or in "
    "another --model_dir"
)


class AnotherRunsError(ValueError):
    """A checkpoint is sound, and not of this run."""


class Checkpoints:
    """Saves and restores the model, the optimizer and the step.

    A checkpoint is one NumPy archive of every variable's local value, written by the chief. Replicas hold the
    same values (BatchNormalization's after they have agreed), so no other worker has to take part, and
    none has to be there: TensorFlow's own checkpoints talk to all workers for each such variable, which
    costs seconds.
    """

    def __init__(
        self,
        model_dir: str,
        variables: Sequence[Any],
        local: Local,
        streams: int,
        writes: bool,
        *,
        optional: Mapping[str, Any] | None = None,
    ) -> None:
        """Looks at nothing yet.

        Args:
            model_dir: where `checkpoints/` stands; every worker reads it.
            variables: of model and optimizer, in an order that is the same in every process.
            local: reads and sets this worker's values of them.
            streams: into how many an epoch is cut; saved along.
            writes: whether this worker is the chief.
            optional: variables by name that a checkpoint may lack: those of a precision, which may be another
                one when the run goes on.
        """
        self._variables, self._local, self._writes = list(variables), local, writes
        self._streams = streams
        self.streams_then = streams  # of the run that saved what was restored
        self._optional = dict(optional or {})
        self._folder = f"{model_dir}/checkpoints"
        self._refusals, self._run = 0, 0

    def restore(self, gather: Gather = lambda step: [step], run: int = 0) -> int:
        """Takes up the newest checkpoint that is sound to all and returns its step, 0 where there is none.

        Args:
            gather: called by every worker with the step of the newest checkpoint that is sound to it, once
                more where they differ; returns what all called it with, in the workers' order.
            run: the number that is saved along and that a checkpoint must have.

        Raises:
            PeerLostError: where the workers do not see the same checkpoints.
            UserError: for a checkpoint of a newer format version; where there are some, and all are damaged.
            TryAgainError: where a storage does not give them for a reason that may pass.
        """
        self._run = run
        step, values = self._newest()
        steps = list(gather(step))
        if min(steps) != max(steps):
            # A network file system may list late what another machine has saved, and yet open it by name.
            if step != max(steps):
                shared_disk.look_for(self._path(max(steps)))
                with contextlib.suppress(*DAMAGED):
                    step, values = max(steps), self._read(self._path(max(steps)))
            steps = list(gather(step))
        chosen = min(steps)
        if chosen != max(steps):
            told = ", ".join(f"worker {i}: step {each}" for i, each in enumerate(steps))
            log.warning("the workers see different checkpoints (%s): all take step %d", told, chosen)
            if chosen == 0:
                raise PeerLostError(f"{self._folder} is not the same storage to all workers ({told})")
        if chosen != step:
            try:
                values = self._read(self._path(chosen))
            except DAMAGED as error:
                raise PeerLostError(f"{self._path(chosen)} cannot be read here ({error})") from error
        for variable, value in zip([*self._variables, *self._optional.values()], values, strict=bool(chosen)):
            self._local.give(variable, value)
        return chosen

    def save(self, step: int) -> bool:
        """Saves the state after `step` steps, whole or not at all, and drops all but the newest two.

        To be called by every worker: each looks at its values, and the chief writes. A disk that is full or
        a storage that refuses is warned of, and the run goes on; the earlier checkpoints stay.

        Returns:
            Whether the run would go on from here, as far as this worker knows.

        Raises:
            UserError: where a value is no number, or saving failed several times in a row.
            TryAgainError: where it failed for a reason that may pass.
        """
        values = list(map(self._local.value, self._variables))
        if not all(np.isfinite(value).all() for value in values):
            raise UserError(f"a weight is no number any more at step {step}, and {NOT_FINITE}")
        if not self._writes:
            return True
        partial = f"{self._folder}/partial"
        try:
            out = io.BytesIO()
            named: dict[str, Any] = {
                "format_version": np.int64(FORMAT_VERSION),
                "streams": np.int64(self._streams),
                "run": np.int64(self._run),
                **{name: self._local.value(variable) for name, variable in self._optional.items()},
            }
            np.savez(out, *values, **named)
            make_folder(self._folder)
            with tf.io.gfile.GFile(partial, "wb") as file:
                file.write(out.getvalue())
            tf.io.gfile.rename(partial, self._path(step), overwrite=True)
        except REFUSED as error:
            _remove(partial)
            self._refused(step, error)
            return False
        self._refusals = 0
        self._drop_older(step)
        return True

    def _drop_older(self, step: int) -> None:
        """Removes all but the newest two up to `step`: a later one is damaged or of another run."""
        try:
            older = sorted(each for each in self._steps() if each <= step)[:-KEPT]
        except REFUSED as error:
            log.warning("%s cannot be listed (%s): older checkpoints stay", self._folder, first_line(error))
            return
        for old in older:
            _remove(self._path(old))

    def _refused(self, step: int, error: BaseException) -> None:
        self._refusals, why = self._refusals + 1, first_line(error)
        log.warning("the checkpoint of step %d could not be saved (%s): the run goes on", step, why)
        if self._refusals == REFUSALS:
            raise refusal(
                f"{self._folder} refused {REFUSALS} checkpoints in a row ({why}): mend that, and start again",
                error,
            )

    def _newest(self) -> tuple[int, list[npt.NDArray[Any]]]:
        """The newest sound checkpoint's step and values, 0 and none where this run has none."""
        damaged: dict[str, BaseException] = {}
        try:
            steps = self._steps()
        except REFUSED as error:
            text = f"{self._folder} cannot be listed ({first_line(error)}): mend the storage, and start again"
            raise refusal(text, error) from error
        for step in sorted(steps, reverse=True):
            try:
                return step, self._read(self._path(step))
            except AnotherRunsError as error:
                log.info("%s is passed over: %s", self._path(step), error)
            except tf.errors.NotFoundError:
                continue  # a network file system may list for a while what another machine has removed
            except DAMAGED as error:
                log.warning("%s is damaged (%s): looking for one before it", self._path(step), error)
                damaged[self._path(step)] = error
        if damaged:
            # To begin anew would throw away hours of work that may still be saved.
            path, why = next(iter(damaged.items()))
            text = f"no checkpoint in {self._folder} can be read ({path}: {first_line(why)})"
            if isinstance(why, REFUSED):
                raise refusal(f"{text}: mend the storage, and start again", why)
            raise UserError(f"{text}: put one right, or begin anew with --restart")
        return 0, []

    def _read(self, path: str) -> list[npt.NDArray[Any]]:
        """All values of a checkpoint, each of them checked."""
        with np.load(io.BytesIO(read(path)), allow_pickle=False) as found:
            if int(found["run"]) != self._run:
                raise AnotherRunsError("it is of another run")
            version = int(found["format_version"])
            if version > FORMAT_VERSION:
                raise UserError(
                    f"{path} has format version {version}, and this Canopy reads up to {FORMAT_VERSION}: "
                    "upgrade Canopy, or begin anew with --restart"
                )
            values = [found[f"arr_{i}"] for i in range(len(self._variables))]
            optional = [
                found[name] if name in found else self._local.value(variable)
                for name, variable in self._optional.items()
            ]
            self.streams_then = int(found["streams"])
        for variable, value in zip(self._variables, values, strict=True):
            if tuple(variable.shape) != value.shape:
                raise ValueError(
                    f"{variable.name} has shape {tuple(variable.shape)} and there is {value.shape}"
                )
        return [*values, *optional]

    def _path(self, step: int) -> str:
        return f"{self._folder}/step-{step:08d}.npz"

    def _steps(self) -> list[int]:
        shared_disk.look_for(self._folder)
        try:
            names = tf.io.gfile.listdir(self._folder)
        except tf.errors.NotFoundError:
            return []
        found = (re.fullmatch(r"step-(\d+)\.npz", name) for name in names)
        return [int(match.group(1)) for match in found if match]


def _remove(path: str) -> None:
    """Removes a file where it can: one that stays does no harm."""
    try:
        delete(path)
    except REFUSED as error:
        log.warning("%s could not be removed (%s)", path, error)
