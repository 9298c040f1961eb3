"""Training itself: steps, validation, checkpoints, and the export at the end.

Promises: all workers take the same steps on one global batch, the chief alone writes, and what a step does
depends on its number and the seed alone, so that a resumed run repeats nothing and skips nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from canopy.cli import PeerLostError, UserError, first_line
from canopy.phrases import rate, several
from canopy.progress import Meter
from trainer import devices, export, model, plan
from trainer.checkpoints import NOT_FINITE, Checkpoints
from trainer.claim import Claim
from trainer.cluster import Place
from trainer.config import Config
from trainer.data_info import DataInfo
from trainer.dataset import Reading
from trainer.files import REFUSED, refusal
from trainer.integrity import Verification
from trainer.journal import Journal
from trainer.local import Local
from trainer.network import precision
from trainer.network.averaging import Average
from trainer.training import alike, gathering
from trainer.training.feeding import Feeding
from trainer.training.pace import Pace
from trainer.training.profiling import Profiler
from trainer.training.results import LAG_STEPS, Results
from trainer.training.steps import Steps
from trainer.training.stopping import Stopping, TerminatedError
from trainer.validation import Validation

log = logging.getLogger("canopy")

EXPORT_PATIENCE = 600.0  # seconds: converting a model may hold Python up, and is no sign of a frozen process
# Whatever TensorFlow raises when a peer is gone.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.CancelledError,
)


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    steps: int  # taken in all, earlier starts included
    before: int  # of these, by earlier starts
    images: int  # trained on by this process' cluster since it started
    seconds: float  # of this start's steps and validations
    validation: dict[str, Any]  # the last epoch's metrics; empty where the run was complete already
    export: str  # the folder to hand on; empty on workers other than the chief

    def told(self) -> str:
        """The run in two lines."""
        model, found = f"model: {self.export}", self.validation
        if not found:
            return f"the run is complete already, after {several(self.steps, 'step')}\n{model}"
        did = f"all {self.steps:,} steps were taken before"
        if self.images:
            taken = f"the last {self.steps - self.before:,} of " if self.before else ""
            taken += several(self.steps, "step")
            did = f"trained {taken}, {several(self.images, 'image')} in {self.seconds:.1f} s"
            did += f" ({rate(self.images, self.seconds)} images/s)"
        return (
            f"{did}; F2 {found['f2']:.4f} on {several(found['records'], 'validation record')} "
            f"(constant tags {found['f2_constant']:.4f})\n{model}"
        )


@dataclass(kw_only=True, eq=False)
class Run:
    """The moving parts of one start of a run."""

    config: Config
    place: Place
    info: DataInfo
    strategy: Any
    network: Any
    optimizer: Any
    average: Average
    reading: Reading
    stopping: Stopping
    verification: Verification
    claim: Claim

    def __post_init__(self) -> None:
        config, place, reading, optimizer = self.config, self.place, self.reading, self.optimizer
        counted = plan.valid_records(reading.total, reading.streams, reading.stream_batch)
        self._counted = np.concatenate([[0], counted.cumsum()])  # images after so many steps of an epoch
        self.profiler = Profiler(config.model_dir, config.profile and place.is_chief)
        self.local = Local(self.strategy)
        validating = dataclasses.replace(reading, shards=self.info.splits["validation"], shuffle=False)
        gpus = self.strategy.extended.worker_devices if devices.gpus() else ()
        self.feeding = Feeding(config, reading, validating, self.local, gpus)
        state = [*self.network.variables, *optimizer.variables, *self.average.variables]
        self.checkpoints = Checkpoints(
            config.model_dir,
            state,
            self.local,
            reading.streams,
            place.is_chief,
            optional=precision.scale_of(optimizer),
        )
        self.steps = Steps(config, self.strategy, self.network, optimizer, self.average.statistics)
        # A GPU computes while Python prepares the next step: looking at a result at once would end that.
        self._lag = LAG_STEPS if devices.gpus() else 0

    def check_alike(self) -> None:
        """Waits for the others, and raises `UserError` on all where one was started otherwise."""
        gather = functools.partial(gathering.rows, self.strategy, self.place)
        alike.check(self.config, self.info.fingerprint, gather)

    def to_the_end(self, mistake: UserError | None) -> Outcome:
        """Trains the epochs that are left, validates after each, exports.

        Args:
            mistake: raised where there is no checkpoint to go on from.
        """
        self.claim.begin()
        # All take the chief's: a network file system may still show the others the earlier run.json.
        number = self._gather(self.claim.id)[0]
        step = first = self.checkpoints.restore(self._gather, number)
        if step:
            log.info("resuming after step %d", step)
            self._warn_of_another_cut(step)
        elif mistake:
            raise mistake
        else:
            self.steps.start_alike()
        start, result = time.monotonic(), Validation({}, [])
        total = self.config.epochs * self.reading.total
        with (
            Meter("training", total, done=self._seen(step), say=log.info) as meter,
            Journal(self.config, self.place.is_chief, step) as journal,
            self.profiler,
        ):
            last = self.reading.steps * self.config.epochs
            # The earlier start may have been lost between an epoch's last checkpoint and its validation.
            lacks = step and step % self.reading.steps == 0 and journal.lacks_validation(step)
            if self._gather(int(lacks or step == last))[0]:
                result = self._close_epoch(step, journal)
            while step < last:
                step = self._epoch(step, meter, journal)
                result = self._close_epoch(step, journal)
        seconds = time.monotonic() - start
        folder = ""
        if self.place.is_chief:
            self.claim.check()
            folder = self._export(result)
            self.claim.finish(step)
        self._gather(0)  # until the chief, too, has come here: one that is gone counts as lost
        self.stopping.done()
        return Outcome(step, first, self._seen(step) - self._seen(first), seconds, result.summary, folder)

    def _seen(self, step: int) -> int:
        """Images trained on in all after so many steps; the padding of a step is none."""
        epochs, within = divmod(step, self.reading.steps)
        return epochs * self.reading.total + int(self._counted[within])

    def _warn_of_another_cut(self, step: int) -> None:
        then, now = self.checkpoints.streams_then, self.reading.streams
        if step % self.reading.steps and then != now and self.place.is_chief:
            log.warning(
                "this epoch was begun by a number of workers that cuts it into %d parts, and is now cut into "
                "%d: some of its records come twice, as many not at all; the next epoch is whole",
                then,
                now,
            )

    def _epoch(self, step: int, meter: Meter, journal: Journal) -> int:
        """Takes the steps of an epoch that are left and returns the step reached."""
        epoch, entered = divmod(step, self.reading.steps)
        self.steps.enter(epoch)
        batches = self.feeding.training(epoch, entered)
        results, pace = Results(self._lag, self.stopping.stepped), Pace(self._seen(step))
        with self.stopping.agreeing() as agree_from_now:
            for _ in range(entered, self.reading.steps):
                with pace.waiting():
                    batch = next(batches)
                seed = tf.constant([self.config.seed, step], tf.int32)
                with self.profiler.step(step):
                    result = self.steps.train(*batch, seed, devices.on_host(self.stopping.is_asked))
                step += 1
                ends = step % self.reading.steps == 0
                self.average.follow(step)
                saves = ends or step % self.config.checkpoint_steps == 0
                logs = ends or step % self.config.log_steps == 0
                results.add(step, result, all_known=saves or logs)
                agree_from_now()
                if logs:
                    self.verification.check()
                    self._tell(step, results.loss, pace, meter, journal)
                if results.stop:
                    self._leave_together(step)
                if saves:
                    self._save(step)
        return step

    def _tell(self, step: int, loss: float, pace: Pace, meter: Meter, journal: Journal) -> None:
        """Writes down how training goes, and shows it."""
        epoch = 1 + (step - 1) // self.reading.steps
        rate, waiting = pace.lap(self._seen(step))
        line = {
            "step": step,
            "epoch": epoch,
            "loss": loss,
            "images_per_second": rate,
            "input_wait_share": waiting,
            "learning_rate": float(self.optimizer.learning_rate.numpy()),
        }
        self._note(journal, line)
        if self.place.is_chief:
            meter.update(self._seen(step), f"epoch {epoch} of {self.config.epochs}, loss {loss:#.3g}")

    def _close_epoch(self, step: int, journal: Journal) -> Validation:
        """Scores every validation record once after an epoch's last step, on all workers, and tells it."""
        self.verification.finish()  # it has had an epoch's time: no model is validated without it
        epoch, tags = step // self.reading.steps, self.info.vocabulary
        with self.average.in_place():
            table = self.steps.score(self.feeding.validation(epoch - 1))
        if not np.isfinite(table).all():  # of finite weights: values too large for half precision, say
            raise UserError(f"a score of validation is no number after step {step}, and {NOT_FINITE}")
        result = Validation.of(table[:, : len(tags)], table[:, len(tags) : -1], tags)
        self._note(journal, {"step": step, "epoch": epoch, "validation": result.summary})
        if self.place.is_chief:
            log.info("epoch %d of %d: validation %s", epoch, self.config.epochs, result.sentence())
        return result

    def _save(self, step: int) -> None:
        """Saves the state after `step`; all workers take part."""
        self.steps.agree()
        self.claim.check()
        with self.stopping.unbroken():
            if self.checkpoints.save(step):
                self.stopping.saved(step)

    def _leave_together(self, step: int) -> None:
        """Ends this start after the same step and its checkpoint on all workers."""
        log.info("a worker was told to stop: all do after step %d", step)
        self._save(step)
        with contextlib.suppress(*LOST):  # a worker that is gone by now was done, too
            self._gather(0)  # until the chief has saved
        if self.stopping.signal:
            raise TerminatedError(self.stopping.signal)
        raise PeerLostError(f"another worker was told to stop; step {step} is saved")

    def _note(self, journal: Journal, line: dict[str, Any]) -> None:
        """Writes a line of the journal; a storage that refuses it does not end the run."""
        try:
            journal.write(line)
        except REFUSED as error:
            log.warning("the journal lacks step %d: %s", line["step"], first_line(error))

    def _gather(self, number: int) -> list[int]:
        """What every worker calls it with, in the workers' order."""
        return gathering.numbers(self.strategy, self.place, number)

    def _export(self, result: Validation) -> str:
        """Rebuilds the network outside the strategy: its variables must not need the other workers."""
        log.info("exporting")
        with self.average.in_place():
            values = list(map(self.local.value, self.network.weights))
        tf_keras.mixed_precision.set_global_policy("float32")
        network = model.build(self.config, self.reading.classes, self.info.prior, None)
        network.set_weights(values)
        try:
            with self.stopping.patience(EXPORT_PATIENCE):
                # Minutes may have passed: another run may have the folder by now.
                return export.export(
                    network, self.config, self.info, result.thresholds, result.summary, check=self.claim.check
                )
        except REFUSED as error:
            raise refusal(
                f"the export cannot be written to {self.config.model_dir} "
                f"({first_line(error)}): mend that, and start again",
                error,
            ) from error
