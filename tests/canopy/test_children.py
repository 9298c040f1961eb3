"""Processes beside a command: how one ended can always be told."""

import signal

import pytest

from canopy import children, machine


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


@pytest.mark.parametrize(
    ("code", "kills", "told"),
    [
        (-signal.SIGKILL, 2, "signal SIGKILL for want of memory"),
        (-signal.SIGKILL, 3, "signal SIGKILL"),  # those were others
        (-signal.SIGKILL, None, "signal SIGKILL"),
        (-signal.SIGTERM, 2, "signal SIGTERM"),
        (137, 2, "exit code 137"),
    ],
)
def test_a_kill_for_want_of_memory_is_told_where_the_kernel_has_counted_one_since(
    code, kills, told, monkeypatch
):
    monkeypatch.setattr(machine, "kills_for_memory", lambda: 3)
    assert children.told(code, kills) == told
