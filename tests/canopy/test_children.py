"""Processes beside a command: how one ended can always be told."""

import math
import resource
import signal

import pytest

from canopy import children, machine
from canopy.cli import UserError


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


def test_more_processes_than_memory_holds_are_refused_with_both_figures(monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: 8e9)
    for count in (0, 1, 8):
        children.check_memory("--workers", count, 1_000_000_000)
    with pytest.raises(UserError) as refused:
        children.check_memory("--workers", 9_000, 1_000_000_000)
    assert str(refused.value) == (
        "--workers 9000 takes at least 9,000.0 GB of memory, and this machine has 8.0 GB, for 8 at most"
    )


def test_no_number_of_processes_is_refused_where_the_system_tells_of_no_limit(monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: math.inf)
    children.check_memory("--workers", 10**9, 10**9)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    children.check_files("--workers", 10**9, 4)
    assert children.fitting(64, 10**9, files=4) == 64


def test_more_processes_than_may_have_files_open_are_refused_with_what_allows_them(files_allowed):
    files_allowed(256)
    children.check_files("--workers", 60, 4)
    with pytest.raises(UserError) as refused:
        children.check_files("--workers", 61, 4)
    assert str(refused.value) == (
        "--workers 61 takes 260 open files, and a process may have 256 here, for 60 at most: "
        "allow more with ulimit -n 260"
    )


def test_the_command_that_allows_more_allows_enough(files_allowed):
    files_allowed(260)
    children.check_files("--workers", 61, 4)


def test_left_alone_as_many_processes_start_as_there_is_ample_room_for(monkeypatch, files_allowed):
    monkeypatch.setattr(machine, "memory", lambda: 8e9)
    assert children.fitting(2, 1_000_000_000) == 2
    assert children.fitting(64, 1_000_000_000) == 2
    assert children.fitting(64, 600_000_000) == 3
    assert children.fitting(64, 9_000_000_000) == 1
    monkeypatch.setattr(machine, "memory", lambda: math.inf)  # of a system that does not tell
    assert children.fitting(64, 1_000_000_000) == 64
    files_allowed(256)
    assert children.fitting(64, 1_000_000_000, files=4) == 32
