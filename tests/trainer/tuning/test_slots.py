"""The bookkeeping of a shared study: slots are counted, not tries, whoever dies or asks at once."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.tuning import slots
from trainer.tuning.slots import Entry


def test_a_trial_and_its_retries_are_one_slot():
    tries = [
        Entry(0, 0, "complete"),
        Entry(1, 1, "failed", slots.LOST),
        Entry(2, 2, "failed", "exit code 1"),
        Entry(3, 1, "failed", slots.STOPPED),
        Entry(4, 1, "running"),
    ]
    found = slots.standing(tries)
    assert [entry.number for entry in found.finished] == [0, 2]
    assert [entry.number for entry in found.unfinished] == [4]
    assert found.slots == 3
    assert slots.standing(reversed(tries)) == found


@pytest.mark.parametrize("why", [slots.LOST, slots.STOPPED])
def test_a_trial_to_be_continued_keeps_its_slot_while_nobody_has_enqueued_it_again(why):
    found = slots.standing([Entry(0, 0, "failed", why)])
    assert found.slots == 1
    assert not found.finished
    assert not found.waiting


def test_a_surplus_trial_counts_nowhere():
    found = slots.standing([Entry(0, 0, "failed", slots.SURPLUS), Entry(1, 1, "waiting")])
    assert found.slots == found.waiting == 1


@pytest.mark.parametrize("state", ["waiting", "running", "complete", "pruned"])
def test_a_second_try_of_a_slot_that_has_another_is_surplus(state):
    tries = [Entry(0, 0, "failed", slots.LOST), Entry(1, 0, state), Entry(2, 0, "running")]
    assert not slots.is_surplus(tries, 1, wanted=1)
    assert slots.is_surplus(tries, 2, wanted=1)


def test_a_retry_is_never_surplus_for_trials_that_began_later():
    tries = [Entry(0, 0, "failed", slots.LOST), Entry(1, 1, "running"), Entry(2, 0, "running")]
    assert not slots.is_surplus(tries, 2, wanted=1)


def test_a_retry_is_not_surplus_where_fewer_trials_are_wanted_by_now():
    tries = [Entry(0, 0, "complete"), Entry(1, 1, "failed", slots.LOST), Entry(2, 1, "running")]
    assert not slots.is_surplus(tries, 2, wanted=1)


@given(wanted=st.integers(1, 6), workers=st.integers(1, 6), fates=st.data())
def test_workers_that_all_ask_at_the_same_moment_end_at_the_number_wanted(wanted, workers, fates):
    """Each round every idle worker begins a trial before any of them looks; some die in it."""
    trials: list[Entry] = []
    numbers = itertools.count()
    for _ in range(100):
        found = slots.standing(trials)
        if len(found.finished) >= wanted:
            break
        begun = []
        for _ in range(workers):
            waiting = next((e for e in trials if e.state == "waiting"), None)
            if waiting:
                trials.remove(waiting)
                begun.append(Entry(waiting.number, waiting.root, "running", deaths=waiting.deaths))
            elif found.slots < wanted:
                number = next(numbers)
                begun.append(Entry(number, number, "running"))
            else:
                break
            trials.append(begun[-1])
        together = list(trials)
        for entry in begun:
            trials.remove(entry)
            if slots.is_surplus(together, entry.number, wanted):
                trials.append(Entry(entry.number, entry.root, "failed", slots.SURPLUS))
                continue
            fate: Any = fates.draw(st.sampled_from(["complete", "pruned", "failed", "lost"]))
            if fate == "lost" and entry.deaths < 3:
                trials.append(Entry(entry.number, entry.root, "failed", slots.LOST))
                trials.append(Entry(next(numbers), entry.root, "waiting", deaths=entry.deaths + 1))
            elif fate in ("lost", "failed"):
                trials.append(Entry(entry.number, entry.root, "failed", "gave up"))
            else:
                trials.append(Entry(entry.number, entry.root, fate))
    assert len(slots.standing(trials).finished) == wanted
    assert not slots.standing(trials).unfinished
