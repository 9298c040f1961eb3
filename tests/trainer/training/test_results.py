"""When the results of steps are looked at, and what comes of them."""

import math

import numpy as np
import pytest

from canopy.cli import UserError
from trainer.training.results import Results


class Step:
    """A step's result that notes when it is waited for."""

    def __init__(self, loss=0.5, told=0, looked_at=None):
        self.values, self.looked_at = np.array([loss, told], np.float32), looked_at

    def numpy(self):
        if self.looked_at is not None:
            self.looked_at.append(self)
        return self.values


def test_without_a_lag_each_result_is_known_at_once_and_told_in_order():
    told: list[int] = []
    results = Results(0, told.append)
    for step, loss in ((7, 0.75), (8, 0.5)):
        results.add(step, Step(loss), all_known=False)
        assert results.loss == loss
    assert told == [7, 8]
    assert results.stop is False


def test_with_a_lag_the_newest_stay_unknown_until_all_must_be_known():
    told: list[int] = []
    looked_at: list[Step] = []
    results = Results(2, told.append)
    steps = [Step(loss, looked_at=looked_at) for loss in (4, 3, 2, 1)]
    for number, step in enumerate(steps[:3]):
        results.add(number, step, all_known=False)
    assert (told, looked_at, results.loss) == ([0], steps[:1], 4)
    results.add(3, steps[3], all_known=True)
    assert (told, looked_at, results.loss) == ([0, 1, 2, 3], steps, 1)


def test_no_loss_is_known_before_the_first_step_is():
    results = Results(2, lambda _: None)
    results.add(1, Step(0.5), all_known=False)
    assert math.isnan(results.loss)


def test_that_any_worker_was_told_to_stop_stays_known():
    results = Results(0, lambda _: None)
    for step, told in enumerate((0, 1, 0)):
        results.add(step, Step(told=told), all_known=False)
    assert results.stop is True


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_run_at_the_step_it_is_of(loss):
    told: list[int] = []
    results = Results(2, told.append)
    for step in (4, 5):
        results.add(step, Step(), all_known=False)
    results.add(6, Step(loss), all_known=False)
    with pytest.raises(
        UserError, match=f"the loss is {loss} at step 6.*--learning_rate.*--restart.*--model_dir"
    ):
        results.add(7, Step(), all_known=True)
    assert told == [4, 5]
