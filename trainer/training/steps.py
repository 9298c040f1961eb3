"""What all replicas compute together: one training step, the scores of a split, agreement on statistics.

Promises: each is one traced graph with as few collectives as can be; a step's randomness comes from the seed
it is given and the replica's number alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras

from trainer import devices, model
from trainer.config import Config
from trainer.local import Local
from trainer.network import augmentation, losses
from trainer.tracing import traced


class Steps:
    """The graphs of one start of a run."""

    def __init__(
        self, config: Config, strategy: Any, network: Any, optimizer: Any, statistics: Sequence[Any] = ()
    ) -> None:
        """Traces nothing yet: each graph is traced when it is first called.

        Args:
            config: the run's settings.
            strategy: over whose replicas they run.
            network: built in the strategy's scope, images to logits.
            optimizer: likewise, with its variables.
            statistics: what each replica moves on its own, besides the network's.
        """
        self._config, self._strategy, self._local = config, strategy, Local(strategy)
        self._network, self._optimizer = network, optimizer
        moved = [*(v for v in network.variables if not v.trainable), *statistics]
        self._statistics = [v for v in moved if v.dtype.is_floating]  # a count is the same everywhere
        self._features, self._head = model.split(network)
        self._whole = traced(lambda *batch: self._distributed_train_step(*batch, whole=True))
        self._head_only = traced(lambda *batch: self._distributed_train_step(*batch, whole=False))
        self._score = traced(lambda *batch: strategy.run(self._replica_score_step, batch))
        self._gather = traced(lambda rows: strategy.run(_replica_gather, (rows,)))
        self.train = self._whole
        self.agree = traced(lambda: strategy.run(self._replica_agree) if self._statistics else None)

    def _distributed_train_step(
        self, images: Any, labels: Any, weights: Any, seed: Any, stop: Any, *, whole: bool
    ) -> Any:
        """Takes a step; returns float32[2]: the loss, and how many replicas were told to stop.

        The one collective carries both, so that all workers learn at the same step that one has to stop.
        """
        loss = self._strategy.run(self._replica_train_step, (images, labels, weights, seed, whole))
        pairs = self._strategy.run(lambda mine: tf.stack([mine, stop]), (loss,))
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, pairs, axis=None)

    def _replica_train_step(self, images: Any, labels: Any, weights: Any, seed: Any, whole: bool) -> Any:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        seed += tf.stack([0, replica * 1_000_003])
        if devices.gpus():
            images = tf.cast(images, tf.float32)  # as bytes they have been turned on CPUs alone
        if self._config.augment != "none":
            images = augmentation.augment(images, seed, self._config.augment)
        images = tf.cast(images, tf.float32)
        if self._config.mixup:
            images, labels = augmentation.mix(images, labels, weights, seed, self._config.mixup)
        trained = self._network if whole else self._head
        is_scaled = isinstance(self._optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
        with tf.GradientTape() as tape:
            # While the head alone trains, the backbone's BatchNormalization keeps its statistics.
            features = self._features(images, training=whole)
            if self._config.dropout:
                # Not a layer: Keras' draws from a state of its own, which a resumed run would not have.
                features = tf.nn.experimental.stateless_dropout(
                    features, self._config.dropout, seed + tf.constant([0, 4]), rng_alg="philox"
                )
            logits = self._head(features, training=True)
            each = losses.of(self._config.loss, labels, logits)
            loss = tf.reduce_sum(tf.reduce_mean(each, axis=1) * weights)
            scaled = self._optimizer.get_scaled_loss(loss) if is_scaled else loss
        variables = trained.trainable_variables
        gradients = tape.gradient(scaled, variables)
        if is_scaled:
            gradients = self._optimizer.get_unscaled_gradients(gradients)
        self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    def start_alike(self) -> None:
        """Gives every replica the chief's variables: its `--weights` may be a file that another lacks."""
        variables = [v for v in self._network.variables if v.dtype.is_floating]

        def chief_alone() -> Any:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            flat = tf.concat([tf.reshape(v, [-1]) for v in variables], axis=0)
            return tf.where(replica == 0, flat, tf.zeros_like(flat))

        rows = traced(lambda: self._strategy.run(chief_alone))()
        flat = self._strategy.reduce(tf.distribute.ReduceOp.SUM, rows, axis=None).numpy()
        ends = np.cumsum([v.shape.num_elements() for v in variables])[:-1]
        for variable, part in zip(variables, np.split(flat, ends), strict=True):
            self._local.give(variable, part.reshape(variable.shape))

    def enter(self, epoch: int) -> None:
        """Makes `train` what the steps of an epoch, counted from 0, are."""
        first = self._config.fine_tune_from_epoch
        self.train = self._whole if 0 <= first <= epoch else self._head_only

    def score(self, batches: Iterable[tuple[Any, ...]]) -> npt.NDArray[np.float32]:
        """Scores a split; the replicas exchange their rows once, at the end.

        Args:
            batches: this worker's, as many as any other's: images, labels and weights, 0 for padding.

        Returns:
            float32[rows, 2 * classes + 1], the same on every worker: scores, labels, weight.
        """
        rows = [self._local.parts(self._score(*batch)) for batch in batches]
        mine = [np.concatenate([each.numpy() for each in column]) for column in zip(*rows, strict=True)]
        table = self._local.value(self._gather(self._local.spread(list(map(tf.constant, mine)))))
        found: npt.NDArray[np.float32] = table[table[:, -1] > 0]
        return found

    def _replica_score_step(self, images: Any, labels: Any, weights: Any) -> Any:
        scores = tf.sigmoid(self._network(tf.cast(images, tf.float32), training=False))
        return tf.concat([scores, labels, weights[:, None]], axis=1)

    def _replica_agree(self) -> None:
        """Gives every replica the mean of all replicas' BatchNormalization statistics, averaged ones too.

        Each replica moves its own. Validation would score with another network than the one that is saved
        and exported. One collective for all of them: one each takes seconds.
        """
        flat = tf.concat([tf.reshape(v, [-1]) for v in self._statistics], axis=0)
        mean = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, flat)
        parts = tf.split(mean, [v.shape.num_elements() for v in self._statistics])
        for variable, part in zip(self._statistics, parts, strict=True):
            variable.assign(tf.reshape(part, variable.shape))


def _replica_gather(rows: Any) -> Any:
    # An argument lies on no device in particular, and the exchange asks on which; a copy lies on one.
    return tf.distribute.get_replica_context().all_gather(tf.identity(rows), axis=0)
