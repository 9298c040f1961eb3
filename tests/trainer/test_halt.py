"""A request to end, by a signal or by the clock: noted, and looked at when it suits."""

import signal
import time

import pytest

from canopy import cli
from trainer.halt import Halt


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, cli.EXIT_TERMINATED), (signal.SIGINT, cli.EXIT_INTERRUPTED)]
)
def test_a_signal_is_noted_with_its_exit_code_and_means_afterwards_what_it_meant_before(number, code):
    before = signal.getsignal(number)
    with Halt(timeout=0) as halt:
        assert (halt.asked, halt.code) == (False, 0)
        signal.raise_signal(number)
        assert (halt.asked, halt.code) == (True, code)
        began = time.monotonic()
        halt.wait(60)
        assert time.monotonic() - began < 30
    assert signal.getsignal(number) is before


def test_the_time_limit_ends_a_wait_and_asks_for_no_exit_code():
    began = time.monotonic()
    with Halt(timeout=0.3) as halt:
        assert not halt.asked
        halt.wait(60)
        assert (halt.asked, halt.code) == (True, 0)
    assert 0.3 <= time.monotonic() - began < 30


def test_without_a_limit_a_wait_is_as_long_as_it_was_asked_for():
    began = time.monotonic()
    with Halt(timeout=0) as halt:
        halt.wait(0.3)
        assert not halt.asked
    assert time.monotonic() - began >= 0.3
