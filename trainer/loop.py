"""Training itself: steps, validation, checkpoints, and the export at the end.

Promises: all workers take the same steps on one global batch, the chief alone writes, and what a step does
depends on its number and the seed alone, so that a resumed run repeats nothing and skips nothing.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from canopy.cli import UserError
from canopy.progress import Meter
from trainer import data_info, dataset, export, model, weights
from trainer.checkpoints import Checkpoints, claim_model_dir
from trainer.cluster import Place
from trainer.config import Config, check_batch
from trainer.data_info import DataInfo
from trainer.dataset import Reading
from trainer.journal import Journal
from trainer.steps import Steps
from trainer.validation import Validation

log = logging.getLogger("canopy")


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    steps: int  # taken in all, earlier starts included
    images: int  # trained on by this process' cluster since it started
    seconds: float  # from the first step of this start to the last
    validation: dict[str, Any]  # the last epoch's metrics
    export: str  # the folder to hand on; empty on workers other than the chief


def train(config: Config, place: Place) -> Outcome:
    """Trains one worker's share of a run, from flags to export.

    Args:
        config: the run's settings.
        place: this worker's; TF_CONFIG has to say the same.

    Raises:
        UserError: for data, settings or devices that cannot be used, or a loss that is no number.
    """
    check_batch(config.batch_size, place.workers)
    info = data_info.read(config.data)
    training_shards, validation_shards = info.shards("train"), info.shards("validation")
    if config.require_gpu and not tf.config.list_physical_devices("GPU"):
        raise UserError("--require_gpu is given and TensorFlow sees no GPU")
    start_weights = (
        weights.resolve(config.weights, config.alpha, config.image_size)
        if config.backbone == "keras"
        else None
    )
    claim_model_dir(config, info.fingerprint, place.is_chief)
    if (config.backbone, config.weights, start_weights) == ("keras", "auto", None) and place.is_chief:
        log.warning(weights.NONE_FOUND)
    log.info("meeting the %d workers", place.workers)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    local_replicas = strategy.num_replicas_in_sync // place.workers
    reading = Reading(
        shards=training_shards,
        classes=len(info.vocabulary),
        image_size=config.image_size,
        replica_batch=check_batch(config.batch_size, strategy.num_replicas_in_sync),
        workers=place.workers,
        index=place.index,
        local_replicas=local_replicas,
        seed=config.seed,
    )
    precision = model.set_precision(config.mixed_precision)
    log.info(
        "%d replicas on %d workers, %s, global batch %d",
        strategy.num_replicas_in_sync,
        place.workers,
        precision,
        config.batch_size,
    )
    tf_keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        network = model.build(config, reading.classes, _prior(info), start_weights)
        if config.init_from:
            export.load_weights(network, config.init_from)
        optimizer = model.optimizer(config, reading.steps * config.epochs)
        optimizer.build(network.trainable_variables)
    run = _Run(
        config=config,
        place=place,
        strategy=strategy,
        network=network,
        optimizer=optimizer,
        reading=reading,
    )
    return run.to_the_end(info, validation_shards)


class _Run:
    """The moving parts of one start of a run."""

    def __init__(
        self,
        *,
        config: Config,
        place: Place,
        strategy: Any,
        network: Any,
        optimizer: Any,
        reading: Reading,
    ) -> None:
        self.config, self.place, self.strategy, self.reading = config, place, strategy, reading
        self.network, self.optimizer = network, optimizer
        state = [*network.variables, *optimizer.variables]
        self.checkpoints = Checkpoints(config.model_dir, state, self._local_value, place.is_chief)
        self.steps = Steps(config, strategy, network, optimizer)

    def to_the_end(self, info: DataInfo, validation_shards: tuple[data_info.Shard, ...]) -> Outcome:
        """Trains the epochs that are left, validates after each, exports."""
        step = first = self.checkpoints.restore()
        if step:
            log.info("resuming after step %d", step)
        else:
            self.steps.start_alike()
        validating = Reading(
            **{**vars(self.reading), "shards": validation_shards, "shuffle": False},
        )
        start, result, validated_at = time.monotonic(), Validation.empty(), -1
        total = self.config.epochs * self.reading.total
        with Meter("training", total) as meter, Journal(self.config, self.place.is_chief) as journal:
            while step < self.reading.steps * self.config.epochs:
                step = self._epoch(step, meter, journal)
                epoch = step // self.reading.steps
                as_trained = self.steps.enter(epoch - 1, validating)
                result, validated_at = self._validate(as_trained, info.vocabulary), step
                journal.write({"step": step, "epoch": epoch, "validation": result.summary})
                if self.place.is_chief:
                    log.info("epoch %d of %d: %s", epoch, self.config.epochs, result.sentence())
        seconds = time.monotonic() - start
        if validated_at != step:
            result = self._validate(validating, info.vocabulary)
        values = [self._local_value(variable) for variable in self.network.weights]
        folder = self._export(values, info, result) if self.place.is_chief else ""
        self._wait_for_all()
        images = int((step - first) / self.reading.steps * self.reading.total)
        return Outcome(step, images, seconds, result.summary, folder)

    def _epoch(self, step: int, meter: Meter, journal: Journal) -> int:
        """Takes the steps of an epoch that are left and returns the step reached."""
        epoch, entered = divmod(step, self.reading.steps)
        batches = iter(dataset.batches(self.steps.enter(epoch, self.reading), epoch, entered))
        waited, since, since_step = 0.0, time.monotonic(), step
        for _ in range(entered, self.reading.steps):
            asked = time.monotonic()
            batch = self._share_out(batches)
            waited += time.monotonic() - asked
            seed = tf.constant([self.config.seed, step], tf.int32)
            loss, _ = self.steps.train(*batch, seed, tf.constant(0.0))
            step += 1
            if step % self.config.log_steps == 0 or step % self.reading.steps == 0:
                value, now = float(loss), time.monotonic()
                if not np.isfinite(value):
                    raise UserError(f"the loss is {value} at step {step}: try a smaller --learning_rate")
                rate = (step - since_step) * self.config.batch_size / (now - since)
                journal.write(
                    {
                        "step": step,
                        "epoch": epoch + 1,
                        "loss": value,
                        "images_per_second": rate,
                        "input_wait_share": waited / (now - since),
                        "learning_rate": float(self.optimizer.learning_rate.numpy()),
                    }
                )
                waited, since, since_step = 0.0, now, step
                if self.place.is_chief:
                    seen = step * self.reading.total // self.reading.steps
                    meter.update(seen, f"epoch {epoch + 1} of {self.config.epochs}, loss {value:.3f}")
            if step % self.config.checkpoint_steps == 0 or step % self.reading.steps == 0:
                self.steps.agree()
                self.checkpoints.save(step)
        return step

    def _local_value(self, variable: Any) -> Any:
        """This worker's value of a variable; nobody else is asked."""
        return self.strategy.experimental_local_results(variable)[0].numpy()

    def _share_out(self, batches: Any) -> tuple[Any, ...]:
        """The next batch of each of this worker's replicas, as `strategy.run` takes them."""
        if self.reading.local_replicas == 1:
            return tuple(next(batches))
        ready = [next(batches) for _ in range(self.reading.local_replicas)]
        columns = [iter(column) for column in zip(*ready, strict=True)]
        # Called once for each local replica, in their order.
        return tuple(
            self.strategy.experimental_distribute_values_from_function(lambda _, column=column: next(column))
            for column in columns
        )

    def _validate(self, reading: Reading, tags: tuple[str, ...]) -> Validation:
        """Scores every validation record once, on all workers together."""
        batches = iter(dataset.batches(reading))
        table = self.steps.score(self._share_out(batches) for _ in range(reading.steps))
        return Validation.of(table[:, : len(tags)], table[:, len(tags) : -1], tags)

    def _export(self, values: list[Any], info: DataInfo, result: Validation) -> str:
        """Rebuilds the network outside the strategy: its variables must not need the other workers."""
        log.info("exporting")
        tf_keras.mixed_precision.set_global_policy("float32")
        network = model.build(self.config, self.reading.classes, _prior(info), None)
        network.set_weights(values)
        return export.export(network, self.config, info, result.thresholds, result.summary)

    def _wait_for_all(self) -> None:
        """Keeps the others until the chief has exported: one that is gone counts as lost."""
        ones = self.strategy.run(lambda: tf.ones([]))
        float(self.strategy.reduce(tf.distribute.ReduceOp.SUM, ones, axis=None))


def _prior(info: DataInfo) -> list[float]:
    """Share of the training records that have each tag."""
    found = info.facts["splits"]["train"]
    return [found["tags"].get(tag, 0) / max(1, found["records"]) for tag in info.vocabulary]
