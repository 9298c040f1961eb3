"""The line between a launcher and its training process: what each learns of the other."""

import os
import threading
import time

import pytest

from tests.trainer.surviving import wait_for
from trainer import link

SECONDS = 10.0


@pytest.fixture
def ends(monkeypatch):
    """Both ends of a line, the process' taken from its environment."""
    far = link.Far()
    monkeypatch.setenv(link.ENVIRONMENT, str(os.dup(far.descriptor)))
    near = link.from_environment()
    far.start()
    yield far, near
    far.close()


def test_the_launcher_learns_what_the_process_has_come_to(ends):
    far, near = ends
    assert (far.is_ready, far.steps, far.saved, far.is_done) == (False, 0, -1, False)
    near.say(link.READY)
    wait_for(lambda: far.is_ready, SECONDS)
    near.say(link.STEP, 3)
    near.say(link.SAVED, 2)
    wait_for(lambda: far.saved == 2, SECONDS)
    assert (far.steps, far.is_done) == (3, False)
    near.say(link.DONE)
    wait_for(lambda: far.is_done, SECONDS)


def test_the_process_hears_all_that_it_is_told_and_when_its_launcher_is_gone(ends):
    far, near = ends
    heard, ended = [], threading.Event()
    near.start(lambda kind, value: heard.append((kind, value)), ended.set)
    far.say(link.GO, "a cluster of two")
    far.say(link.LOST)
    wait_for(lambda: len(heard) == 2, SECONDS)
    assert heard == [(link.GO, "a cluster of two"), (link.LOST, "")]
    assert not ended.is_set()
    far.close()
    assert ended.wait(SECONDS)
    near.say(link.STEP, 1)  # nobody hears it, and nothing happens


def test_a_process_that_only_lives_is_not_silent(ends, monkeypatch):
    far, near = ends
    time.sleep(0.3)
    assert far.silent_for() >= 0.3
    monkeypatch.setattr(link, "BEAT_SECONDS", 0.05)
    near.start(lambda *_: None, lambda: None)
    wait_for(lambda: far.silent_for() < 0.2, SECONDS)
    time.sleep(0.5)
    wait_for(lambda: far.silent_for() < 0.2, SECONDS)


def test_a_process_may_be_silent_for_as_long_as_it_has_asked_for(ends):
    far, near = ends
    near.say(link.PATIENCE, 60.0)
    wait_for(lambda: far.silent_for() < -30, SECONDS)
    near.say(link.PATIENCE, 0)
    wait_for(lambda: far.silent_for() >= 0, SECONDS)


def test_seconds_that_are_forgiven_do_not_count_and_none_are_given_in_advance(ends):
    far, _ = ends
    time.sleep(0.5)
    before = far.silent_for()
    far.forgive(60.0)
    assert 0 <= far.silent_for() < before


def test_no_child_takes_the_line_for_its_own(ends):
    assert link.ENVIRONMENT not in os.environ
    assert not link.from_environment().has_launcher
    assert ends[1].has_launcher


def test_a_process_that_was_started_by_hand_speaks_to_nobody():
    near = link.Near(None)
    near.start(lambda *_: None, lambda: pytest.fail("there was no launcher"))
    near.say(link.READY)
    assert not near.has_launcher
