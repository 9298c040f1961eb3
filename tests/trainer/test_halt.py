"""A request to end, by a signal or by the clock: noted, and looked at when it suits."""

import signal
import time

import pytest

from canopy import cli
from trainer.halt import Halt


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ((signal.SIGTERM, signal.SIGINT), cli.EXIT_TERMINATED),
        ((signal.SIGINT, signal.SIGTERM), cli.EXIT_INTERRUPTED),
    ],
)
def test_the_first_signal_is_noted_with_its_exit_code_and_means_afterwards_what_it_meant_before(
    numbers, code
):
    before = [*map(signal.getsignal, numbers)]
    with Halt() as halt:
        assert (halt.asked, halt.code) == (False, 0)
        for number in numbers:
            signal.raise_signal(number)
            assert (halt.asked, halt.code) == (True, code)
        began = time.monotonic()
        halt.wait(60)
        assert time.monotonic() - began < 30
    assert [*map(signal.getsignal, numbers)] == before


def test_signals_that_a_command_was_started_with_blocked_reach_it():
    numbers = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    with Halt():
        assert not numbers & signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_the_time_limit_ends_a_wait_and_asks_for_no_exit_code():
    began = time.monotonic()
    with Halt(timeout=0.3) as halt:
        assert not halt.asked
        halt.wait(60)
        assert (halt.asked, halt.code) == (True, 0)
    assert 0.3 <= time.monotonic() - began < 30


def test_without_a_limit_a_wait_is_as_long_as_it_was_asked_for():
    began = time.monotonic()
    with Halt() as halt:
        halt.wait(0.3)
        assert not halt.asked
    assert time.monotonic() - began >= 0.3
