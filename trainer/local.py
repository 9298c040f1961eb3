"""A variable's value on this worker: made, looked at and set without asking anybody.

Promises: no collective and no graph. Making hundreds of mirrored variables, or assigning to them, takes
seconds where each of them is a talk of all workers.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy.typing as npt
import tensorflow as tf


@contextlib.contextmanager
def making_variables(strategy: Any) -> Iterator[None]:
    """The strategy's scope, in which each replica begins with a value of its own.

    By itself the strategy broadcasts the chief's first value of every variable, one after the other. Here all
    have to be given the same values afterwards. What each replica moves on its own (BatchNormalization's
    statistics) reads as the first local replica's, which is what `Local.value` gives; by itself the strategy
    would trace a collective for each time that Keras looks at one while a network is built.

    Args:
        strategy: over whose replicas the variables are mirrored.
    """
    first: list[Any] = []

    def note(create: Any, **settings: Any) -> Any:
        first[:] = [settings["initial_value"]]
        if settings.get("synchronization") == tf.VariableSynchronization.ON_READ:
            settings["aggregation"] = tf.VariableAggregation.ONLY_FIRST_REPLICA
        return create(**settings)

    def use(create: Any, **settings: Any) -> Any:
        return create(**{**settings, "initial_value": first[0]})

    with warnings.catch_warnings():
        # Keras would say of an initializer that it is asked again, for the next replica.
        warnings.filterwarnings("ignore", message="The initializer .* is unseeded and being called multiple")
        # The creator outside the scope is the last to be asked, after the strategy's own.
        with tf.variable_creator_scope(use), strategy.scope(), tf.variable_creator_scope(note):
            yield


class Local:
    """This worker's part of what a strategy distributes."""

    def __init__(self, strategy: Any) -> None:
        """Looks at nothing yet.

        Args:
            strategy: in whose scope the variables were made.
        """
        self._strategy = strategy

    def parts(self, variable: Any) -> tuple[Any, ...]:
        """What each of this worker's replicas has of it: plain variables, in the replicas' order."""
        found: tuple[Any, ...] = self._strategy.experimental_local_results(variable)
        return found

    def value(self, variable: Any) -> npt.NDArray[Any]:
        """The value that the first of this worker's replicas has."""
        found: npt.NDArray[Any] = self.parts(variable)[0].numpy()
        return found

    def give(self, variable: Any, value: npt.NDArray[Any]) -> None:
        """Sets all of this worker's replicas; to be called by every worker, with the same value.

        Args:
            variable: to set.
            value: of its shape and dtype.
        """
        for part in self.parts(variable):
            part.assign(value)

    def spread(self, values: Sequence[Any]) -> Any:
        """A value for each of this worker's replicas, in their order, as `strategy.run` takes them."""
        if len(values) == 1:
            return values[0]
        left = iter(values)  # asked for once for each replica, in their order
        return self._strategy.experimental_distribute_values_from_function(lambda _: next(left))
