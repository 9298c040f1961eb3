"""What a launcher makes of the signals that come to it while its workers run."""

import signal
import time

import pytest

from canopy import cli
from trainer import stopping, supervise


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ((signal.SIGTERM, signal.SIGINT), cli.EXIT_TERMINATED),
        ((signal.SIGINT, signal.SIGTERM), cli.EXIT_INTERRUPTED),
    ],
)
def test_the_first_signal_counts_and_ends_a_pause_and_what_was_set_before_comes_back(numbers, code):
    before = [*map(signal.getsignal, numbers)]
    with supervise.Signals() as signals:
        for number in numbers:
            signal.raise_signal(number)
        assert signals.code == code
        began = time.monotonic()
        signals.sleep(60)
        assert time.monotonic() - began < 30
    assert [*map(signal.getsignal, numbers)] == before


def test_signals_that_a_launcher_was_started_with_blocked_reach_it():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
    try:
        with supervise.Signals():
            assert not stopping.SIGNALS & signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
