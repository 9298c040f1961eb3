"""How fast steps are, by a clock that the test moves."""

import time

import pytest

from trainer.training.pace import Pace


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_each_lap_has_its_own_rate_and_share_of_waiting(clock):
    pace = Pace(10)
    for _ in range(2):
        with pace.waiting():
            clock[0] += 1
        clock[0] += 3
    assert pace.lap(12) == (0.25, 0.25)
    clock[0] += 2
    assert pace.lap(13) == (0.5, 0)
