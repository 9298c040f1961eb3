"""A variable's value on this worker, looked at and set without asking anybody.

Promises: no collective and no graph. Assigning to hundreds of mirrored variables one by one takes seconds.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt


class Local:
    """This worker's part of what a strategy distributes."""

    def __init__(self, strategy: Any) -> None:
        """Looks at nothing yet.

        Args:
            strategy: in whose scope the variables were made.
        """
        self._strategy = strategy

    def value(self, variable: Any) -> npt.NDArray[Any]:
        """The value that the first of this worker's replicas has."""
        found: npt.NDArray[Any] = self._strategy.experimental_local_results(variable)[0].numpy()
        return found

    def give(self, variable: Any, value: npt.NDArray[Any]) -> None:
        """Sets all of this worker's replicas; to be called by every worker, with the same value.

        Args:
            variable: to set.
            value: of its shape and dtype.
        """
        for part in self._strategy.experimental_local_results(variable):
            part.assign(value)
