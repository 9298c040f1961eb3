"""Processes beside a command: how one ended can always be told."""

import signal

import pytest

from canopy import children


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (0, "exit code 0"),
        (75, "exit code 75"),
        (-signal.SIGKILL, "signal SIGKILL"),
        (-63, "signal 63"),  # a real-time signal, which has no name
    ],
)
def test_a_process_that_ended_by_whatever_signal_is_told_of(code, told):
    assert children.told(code) == told
