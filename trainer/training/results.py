"""The results of training steps: looked at as soon as they are due, and no sooner.

Promises: a loss that is no number ends the run before anything is saved; no result is looked at out of turn,
nor more than the lag allows left unknown.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from canopy.cli import UserError
from trainer.checkpoints import NOT_FINITE

LAG_STEPS = 2  # results of steps that may be unknown while the next one is prepared


class Pending(Protocol):
    """A step's result on its way from the device."""

    def numpy(self) -> NDArray[np.float32]:
        """Waits for it: float32[2], the loss and how many workers were told to stop."""
        ...


class Results:
    """The results of an epoch's steps."""

    def __init__(self, lag: int, stepped: Callable[[int], None]) -> None:
        """Begins with none.

        Args:
            lag: how many of the newest may stay unknown.
            stepped: called with each step that is known to be done, in order.
        """
        self._lag, self._stepped = lag, stepped
        self._unknown: collections.deque[tuple[int, Pending]] = collections.deque()
        self.loss = math.nan  # of the newest step that is known
        self.stop = False  # whether a worker had been told to stop

    def add(self, step: int, result: Pending, all_known: bool) -> None:
        """Takes a step's result, and looks at those that are due.

        Args:
            step: its number.
            result: its result.
            all_known: whether none may stay unknown, because the state is about to be saved or told.

        Raises:
            UserError: where a loss is no number.
        """
        self._unknown.append((step, result))
        while len(self._unknown) > (0 if all_known else self._lag):
            known, result = self._unknown.popleft()
            self.loss, told = map(float, result.numpy())
            self.stop = self.stop or told > 0
            if not math.isfinite(self.loss):
                raise UserError(f"the loss is {self.loss} at step {known}, and {NOT_FINITE}")
            self._stepped(known)
