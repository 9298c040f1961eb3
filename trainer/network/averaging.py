"""The moving average of the weights, which often scores better than the weights of the last step.

Promises: following costs no collective; the average is saved, restored and agreed upon like the weights; the
training goes on from the weights that it had, whatever was validated or exported in between.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from trainer import devices
from trainer.local import Local
from trainer.tracing import traced

EVERY = 8  # steps between updates: each reads and writes all weights


class Average:
    """An exponential moving average of all of a network's variables, statistics included.

    Averages of weights along the way to the optimum lie in wider minima than its end does (Izmailov et al.
    2018, Averaging Weights Leads to Wider Optima and Better Generalization). BatchNormalization's statistics
    are averaged with the same window, since they belong to the weights that they were taken with.
    """

    def __init__(self, decay: float, strategy: Any, network: Any, epoch: int) -> None:
        """Makes the variables; call in the strategy's scope.

        Args:
            decay: the factor by which each step shrinks the share of those before it, at least 0 and below
                1; 0 keeps no average, and the network stays as it was trained.
            strategy: over whose replicas the network is mirrored.
            network: to follow.
            epoch: steps of an epoch, whose end is never left out.
        """
        self._decay, self._epoch, self._local = decay, epoch, Local(strategy)
        self._followed = [v for v in network.variables if v.dtype.is_floating] if decay else []
        self.variables = [
            tf.Variable(
                tf.zeros(each.shape, each.dtype),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,  # no collective when it is written
                aggregation=tf.VariableAggregation.MEAN,
                name="average",
            )
            for each in self._followed
        ]
        self._move = traced(self._move_all)

    @property
    def statistics(self) -> list[Any]:
        """The averages of what each replica moves on its own."""
        pairs = zip(self._followed, self.variables, strict=True)
        return [average for each, average in pairs if not each.trainable]

    def follow(self, step: int) -> None:
        """Takes in the weights after `step`, if it is the first, its turn, or an epoch's end.

        The first weights count no more than later ones: the decay grows from 0 to its own, as in TensorFlow's
        ExponentialMovingAverage with `num_updates`.
        """
        if not self._followed or (step % EVERY and step > 1 and step % self._epoch):
            return
        updates, since = step // EVERY, 1 + min((step - 1) % EVERY, (step - 1) % self._epoch)
        decay = min(self._decay**since, updates / (updates + 9))
        self._move(devices.on_host(1 - decay))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Lets the network hold the average meanwhile; all replicas' statistics have to agree before."""
        kept = list(map(self._local.value, self._followed))
        self._give(map(self._local.value, self.variables))
        try:
            yield
        finally:
            self._give(kept)

    def _give(self, values: Iterable[npt.NDArray[Any]]) -> None:
        for variable, value in zip(self._followed, values, strict=True):
            self._local.give(variable, value)

    def _move_all(self, share: Any) -> None:
        """Moves every replica's part by itself: with `strategy.run` it takes twice as long to trace."""
        for variable, average in zip(self._followed, self.variables, strict=True):
            for here, there in zip(self._local.parts(variable), self._local.parts(average), strict=True):
                with tf.device(here.device):  # else the first GPU computes it for all, and each sends it both
                    there.assign_sub((there - here) * share)
