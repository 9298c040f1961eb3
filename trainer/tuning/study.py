"""The study that several workers share, as one of them sees it.

Promises: each slot of the study is trained by one worker at a time; the trial of a worker that died is tried
again by whoever notices first, a bounded number of times; nothing is decided by comparing two clocks.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from trainer.tuning import sampling, slots
from trainer.tuning.search import Space
from trainer.tuning.slots import Entry, Standing, State

MAX_DEATHS = 3  # workers that a trial may cost before it counts as failed
LONGEST_SILENCE_SECONDS = 20.0  # between two signs of life
STATES: dict[TrialState, State] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


class TakenError(Exception):
    """The trial is no longer this worker's: it was silent for so long that others took it for dead."""


class Study:
    """One study, as one of its workers sees it."""

    def __init__(self, study: optuna.Study, wanted: int, stale_after: float) -> None:
        """Looks at nothing yet.

        Args:
            study: with its sampler and pruner.
            wanted: slots to fill, over all workers.
            stale_after: seconds without a sign of life after which a worker counts as dead.
        """
        self.study, self.wanted, self._stale_after = study, wanted, stale_after
        self._worker = f"{os.uname().nodename}:{os.getpid()}"
        # When each unfinished trial was last seen to change. By this worker's own clock: those of several
        # machines may differ by more than a worker may be silent.
        self._seen: dict[Entry, float] = {}
        self._beats: dict[int, tuple[int, float]] = {}

    def entries(self) -> list[Entry]:
        """All trials, as the bookkeeping takes them."""
        return [_entry(trial) for trial in self.study.get_trials(deepcopy=False)]

    def standing(self) -> Standing:
        """How far the study is."""
        return slots.standing(self.entries())

    def trials(self) -> list[FrozenTrial]:
        """The trial of each finished slot, by number."""
        every = self.study.get_trials(deepcopy=False)
        final = {entry.number for entry in slots.standing(map(_entry, every)).finished}
        return [trial for trial in every if trial.number in final]

    def claim(self, space: Space) -> Trial | None:
        """Takes up a trial that waits, or begins one where slots are left; None where there is nothing."""
        found = self.standing()
        if not found.waiting and found.slots >= self.wanted:
            return None
        trial = self.study.ask(sampling.distributions(space))
        if slots.is_surplus(self.entries(), trial.number, self.wanted):
            self._end(trial.number, slots.SURPLUS)
            return None
        with _mine():
            trial.set_user_attr("worker", self._worker)
        self.beat(trial)
        return trial

    def beat(self, trial: Trial) -> None:
        """Gives a sign of life where one is due.

        Raises:
            TakenError: where others took the trial for dead.
        """
        count, at = self._beats.get(trial.number, (0, -1e9))
        if time.monotonic() - at < min(LONGEST_SILENCE_SECONDS, self._stale_after / 6):
            return
        with _mine():
            trial.set_user_attr("beat", count + 1)
        self._beats[trial.number] = count + 1, time.monotonic()

    def report(self, trial: Trial, epoch: int, f2: float) -> bool:
        """Notes an epoch's validation F2 and returns whether the trial should end for it."""
        with _mine():
            trial.report(f2, epoch)
        return trial.should_prune()

    def tell(self, trial: Trial, f2: float | None = None, why: str = "", **facts: Any) -> None:
        """Ends a trial.

        Args:
            trial: this worker's.
            f2: of the export; None for one that was pruned or failed.
            why: it failed; empty for one that was pruned.
            facts: to keep with it, such as its seconds.

        Raises:
            TakenError: where others took the trial for dead.
        """
        with _mine():
            for name, value in facts.items():
                trial.set_user_attr(name, value)
        if why:
            if self._end(trial.number, why) and why in slots.CONTINUED:
                self._again(trial.number)
            return
        state = TrialState.PRUNED if f2 is None else TrialState.COMPLETE
        try:
            self.study.tell(trial, f2, state)
        except (UpdateFinishedTrialError, ValueError) as error:  # ValueError: it has ended already
            raise TakenError from error

    def rescue(self) -> list[int]:
        """Gives the trials of dead workers to whoever takes them up, and returns their numbers."""
        now = time.monotonic()
        begun = [entry for entry in self.standing().unfinished if entry.state != "waiting"]
        self._seen = {entry: self._seen.get(entry, now) for entry in begun}
        rescued = []
        for entry, since in self._seen.items():
            if now - since < self._stale_after:
                continue
            gave_up = f"gave up: it cost {entry.deaths + 1} workers"
            why = slots.LOST if entry.deaths < MAX_DEATHS else gave_up
            # A failed one that nobody continues: its worker died between the two.
            if entry.state == "failed" or self._end(entry.number, why):
                self._again(entry.number)
                rescued.append(entry.number)
        return rescued

    def _end(self, number: int, why: str) -> bool:
        """Lets a trial fail and returns whether it was this worker who did."""
        trial = self._frozen(number)
        try:
            self.study._storage.set_trial_user_attr(trial._trial_id, "why", why)
            self.study.tell(number, state=TrialState.FAIL)
        except (UpdateFinishedTrialError, ValueError):  # another worker, or the trial's own, was faster
            return False
        return True

    def _again(self, number: int) -> None:
        """Enqueues what a trial tried, if its slot may still cost a worker."""
        trial = self._frozen(number)
        entry = _entry(trial)
        if entry.why not in slots.CONTINUED:
            return
        self.study.enqueue_trial(
            # A worker that died while it took a retry up had drawn only some of what was to be tried again,
            # and never came to the folder.
            {**trial.system_attrs.get("fixed_params", {}), **trial.params},
            user_attrs={
                "root": entry.root,
                "previous": number if entry.beat else trial.user_attrs.get("previous"),
                "deaths": entry.deaths + (entry.why == slots.LOST),
            },
        )

    def _frozen(self, number: int) -> FrozenTrial:
        return next(trial for trial in self.study.get_trials(deepcopy=False) if trial.number == number)


def best_of(trials: list[FrozenTrial]) -> FrozenTrial | None:
    """The complete trial of the highest F2, of equal ones the first; None where none is complete."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return max(complete, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)


def _entry(trial: FrozenTrial) -> Entry:
    known = trial.user_attrs
    return Entry(
        number=trial.number,
        root=known.get("root", trial.number),
        state=STATES[trial.state],
        why=known.get("why", "") if trial.state == TrialState.FAIL else "",
        deaths=known.get("deaths", 0),
        beat=known.get("beat", 0),
    )


@contextlib.contextmanager
def _mine() -> Iterator[None]:
    """Turns the storage's answer for a trial that has ended elsewhere into `TakenError`."""
    try:
        yield
    except UpdateFinishedTrialError as error:
        raise TakenError from error
