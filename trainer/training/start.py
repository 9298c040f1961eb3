"""From settings to a run that is ready to train: data, devices and folder looked at, the cluster joined.

Promises: what this worker can find wrong by itself is refused before the others are met, and that they were
not started alike as soon as they are; a mistake found before the first step leaves no claim on the folder,
and an earlier run in it as it was.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

import tf_keras

from canopy.cli import UserError
from canopy.phrases import several
from trainer import data_info, devices, export, model, weights
from trainer.claim import Claim, claim_model_dir, may_go_on, run_id
from trainer.cluster import Place
from trainer.config import Config, check_batch
from trainer.data_info import DataInfo
from trainer.dataset import Reading
from trainer.integrity import Verification
from trainer.local import making_variables
from trainer.model_dir import check_sources
from trainer.network import precision
from trainer.network.averaging import Average
from trainer.training import gathering
from trainer.training.loop import Outcome, Run
from trainer.training.stopping import Stopping

# Until all have joined, TensorFlow holds up the Python of those who are there, and a peer with many GPUs,
# which its driver wakes one by one, takes its time. The watch notices sooner one that does not come at all.
JOIN_SECONDS = 90.0

log = logging.getLogger("canopy")


def train(config: Config, place: Place, stopping: Stopping) -> Outcome:
    """Trains one worker's share of a run, from flags to export.

    Args:
        config: the run's settings.
        place: this worker's; whether it is the chief must not change, the addresses may.
        stopping: what may end it before its time.

    Raises:
        UserError: for data, settings or devices that cannot be used, or a loss that is no number.
        PeerLostError: where another worker was stopped; the state is saved.
        TerminatedError: where this worker was stopped; likewise.
    """
    devices.check(config)
    info = data_info.read(config.data)
    shards = [*info.shards("train"), *info.shards("validation")]
    info.check_batch(config.batch_size)
    check_sources(config)
    run_name = run_id(os.environ)
    beginning = look_for_beginning(config, info, run_name)
    claim = claim_model_dir(config, info.fingerprint, place.is_chief, run_name)
    if claim.finished:
        folder = f"{config.model_dir}/export" if place.is_chief else ""
        return Outcome(claim.finished, claim.finished, 0, 0.0, {}, folder)
    begins = claim.is_new or claim.replaces  # else its backbone has learned already
    if begins and config.takes_weights and (config.weights, beginning.weights) == ("auto", None):
        log.warning(weights.NONE_FOUND)
    if place.workers > 1:
        log.info("meeting the %d workers", place.workers)
    verification = Verification(shards, place.workers, place.index)
    with claim.until_it_begins():
        place = stopping.meet()
        run = _made(config, place, info, beginning, stopping=stopping, verification=verification, claim=claim)
        run.check_alike()
    with claim.until_it_saves():
        return run.to_the_end(beginning.mistake)


@dataclass(frozen=True)
class Beginning:
    """What a run's first step starts from, besides its settings."""

    weights: str | None  # the keras backbone's file; None: random weights, which a checkpoint may replace
    mistake: UserError | None = None  # why the run cannot begin anew; it may still be resumed


def look_for_beginning(config: Config, info: DataInfo, run: str) -> Beginning:
    """Finds what the run begins with.

    A run that is resumed takes everything from its checkpoint. What it began with may be gone by then, or the
    way to the internet by which it came: neither may cost a run whose pod was lost.

    Args:
        config: the run's settings.
        info: of the data set.
        run: the same at every start of one run.

    Raises:
        UserError: for what is not there or does not fit, where no checkpoint may be taken up instead.
    """
    try:
        if config.init_from:
            info.check_start(config)
        if not config.takes_weights:
            return Beginning(None)
        return Beginning(weights.resolve(config.weights, config.alpha, config.image_size))
    except UserError as error:
        if not may_go_on(config, run):
            raise
        return Beginning(None, error)


def _made(
    config: Config,
    place: Place,
    info: DataInfo,
    beginning: Beginning,
    *,
    stopping: Stopping,
    verification: Verification,
    claim: Claim,
) -> Run:
    """Joins the cluster and makes what a run works with."""
    with stopping.patience(JOIN_SECONDS):
        strategy = devices.strategy(config.communication)
    local_replicas = strategy.num_replicas_in_sync // place.workers
    reading = Reading(
        shards=info.splits["train"],
        classes=len(info.vocabulary),
        image_size=config.image_size,
        replica_batch=check_batch(config.batch_size, strategy.num_replicas_in_sync),
        workers=place.workers,
        index=place.index,
        local_replicas=local_replicas,
        seed=config.seed,
    )
    if config.batch_size > reading.total and place.is_chief:
        log.warning(
            "the global batch of %d is larger than the training split: each epoch is one step over its %d "
            "records, and padding beside them takes as long",
            config.batch_size,
            reading.total,
        )
    if config.fine_tune_from_epoch >= config.epochs and place.is_chief:
        log.warning(
            "--fine_tune_from_epoch %d is beyond the last of the %d epochs, which count from 0: the backbone "
            "never trains",
            config.fine_tune_from_epoch,
            config.epochs,
        )
    chosen = precision.settle(config.mixed_precision, lambda mine: gathering.numbers(strategy, place, mine))
    log.info(
        "%s on %s, %s, global batch %d",
        several(strategy.num_replicas_in_sync, "replica"),
        several(place.workers, "worker"),
        chosen,
        config.batch_size,
    )
    tf_keras.utils.set_random_seed(config.seed)
    with making_variables(strategy):
        network = model.build(config, reading.classes, info.prior, beginning.weights)
        if config.init_from and not beginning.mistake:
            export.load_weights(network, config.init_from)
        optimizer = model.optimizer(config, reading.steps * config.epochs)
        optimizer.build(network.trainable_variables)
        average = Average(config.average_decay, strategy, network, reading.steps)
    return Run(
        config=config,
        place=place,
        info=info,
        strategy=strategy,
        network=network,
        optimizer=optimizer,
        average=average,
        reading=reading,
        stopping=stopping,
        verification=verification,
        claim=claim,
    )
