"""What all replicas compute together: one training step, one scoring step, agreement on statistics.

Promises: each is one traced graph with as few collectives as can be; a step's randomness comes from the seed
it is given and the replica's number alone.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras

from trainer import model
from trainer.config import Config


class Steps:
    """The graphs of one start of a run."""

    def __init__(self, config: Config, strategy: Any, network: Any, optimizer: Any) -> None:
        """Traces nothing yet: each graph is traced when it is first called.

        Args:
            config: the run's settings.
            strategy: over whose replicas they run.
            network: built in the strategy's scope, images to logits.
            optimizer: likewise, with its variables.
        """
        self._config, self._strategy = config, strategy
        self._network, self._optimizer = network, optimizer
        self._statistics = [v for v in network.variables if not v.trainable]
        self.train = tf.function(self._distributed_train_step)
        self.score = tf.function(self._distributed_score_step)
        self.agree = tf.function(lambda: strategy.run(self._replica_agree))

    def _distributed_train_step(self, images: Any, labels: Any, weights: Any, seed: Any, stop: Any) -> Any:
        """Takes a step; returns float32[2]: the loss, and how many replicas were told to stop.

        The one collective carries both, so that all workers learn at the same step that one has to stop.
        """
        losses = self._strategy.run(self._replica_train_step, (images, labels, weights, seed))
        pairs = self._strategy.run(lambda loss: tf.stack([loss, stop]), (losses,))
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, pairs, axis=None)

    def _replica_train_step(self, images: Any, labels: Any, weights: Any, seed: Any) -> Any:
        images = tf.cast(images, tf.float32)
        if self._config.augment == "d4":
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            images = model.augment(images, seed + tf.stack([0, replica * 1_000_003]))
        with tf.GradientTape() as tape:
            logits = self._network(images, training=True)
            each = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
            loss = tf.reduce_sum(tf.reduce_mean(each, axis=1) * weights)
            scaled = self._optimizer.get_scaled_loss(loss) if self._is_scaled else loss
        variables = self._network.trainable_variables
        gradients = tape.gradient(scaled, variables)
        if self._is_scaled:
            gradients = self._optimizer.get_unscaled_gradients(gradients)
        self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    @property
    def _is_scaled(self) -> bool:
        return isinstance(self._optimizer, tf_keras.mixed_precision.LossScaleOptimizer)

    def _distributed_score_step(self, images: Any, labels: Any, weights: Any) -> Any:
        return self._strategy.run(self._replica_score_step, (images, labels, weights))

    def _replica_score_step(self, images: Any, labels: Any, weights: Any) -> Any:
        scores = tf.sigmoid(self._network(tf.cast(images, tf.float32), training=False))
        rows = tf.concat([scores, labels, weights[:, None]], axis=1)
        return tf.distribute.get_replica_context().all_gather(rows, axis=0)

    def _replica_agree(self) -> None:
        """Gives every replica the mean of all replicas' BatchNormalization statistics.

        Each replica moves its own. Validation would score with another network than the one that is saved
        and exported. One collective for all of them: one each takes seconds.
        """
        flat = tf.concat([tf.reshape(v, [-1]) for v in self._statistics], axis=0)
        mean = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, flat)
        parts = tf.split(mean, [v.shape.num_elements() for v in self._statistics])
        for variable, part in zip(self._statistics, parts, strict=True):
            variable.assign(tf.reshape(part, variable.shape))
