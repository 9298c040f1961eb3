"""How far a shared study is: pure bookkeeping over its trials.

Promises: a trial and all its retries are one slot; slots, not tries, are counted, so that workers who lose
trials or ask at the same moment still end at the number wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

# Why a trial failed that another one continues.
LOST = "lost: its worker gave no sign of life"
STOPPED = "stopped: its worker was told to end"
CONTINUED = frozenset({LOST, STOPPED})
# Why a trial failed that should never have begun.
SURPLUS = "surplus: other workers took the last places"

State = Literal["waiting", "running", "complete", "pruned", "failed"]
ALIVE = frozenset({"waiting", "running", "complete", "pruned"})


@dataclass(frozen=True)
class Entry:
    """What counts of a trial."""

    number: int  # in the study
    root: int  # number of the trial that it tries again, or its own
    state: State
    why: str = ""  # of a failed one
    deaths: int = 0  # workers that its slot has cost
    beat: int = 0  # its worker's last sign of life


@dataclass(frozen=True)
class Standing:
    """How far a study is."""

    finished: tuple[Entry, ...]  # the last try of each slot that needs no other
    unfinished: tuple[Entry, ...]  # the last try of each of the others

    @property
    def slots(self) -> int:
        """Slots taken up, finished or not."""
        return len(self.finished) + len(self.unfinished)

    @property
    def waiting(self) -> int:
        """Tries that a worker may take up at once."""
        return sum(entry.state == "waiting" for entry in self.unfinished)


def standing(entries: Iterable[Entry]) -> Standing:
    """Puts tries together into slots; those that were surplus count nowhere."""
    last: dict[int, Entry] = {}
    for entry in sorted(entries, key=lambda entry: entry.number):
        if entry.why != SURPLUS:
            last[entry.root] = entry
    slots = [last[root] for root in sorted(last)]
    return Standing(
        finished=tuple(entry for entry in slots if is_final(entry)),
        unfinished=tuple(entry for entry in slots if not is_final(entry)),
    )


def is_final(entry: Entry) -> bool:
    """Whether no worker will take the trial up or continue it in another."""
    if entry.state == "failed":
        return entry.why not in CONTINUED
    return entry.state in ("complete", "pruned")


def is_surplus(entries: Sequence[Entry], number: int, wanted: int) -> bool:
    """Whether a trial that was just begun has to be given up again.

    Args:
        entries: of all trials, as read after it was begun.
        number: its number.
        wanted: slots that the study shall have.

    Returns:
        True where its slot has an older living try, or where others, begun before it, fill the study.
    """
    mine = next(entry for entry in entries if entry.number == number)
    kin = (entry for entry in entries if entry.root == mine.root and entry.number < number)
    if any(entry.state in ALIVE for entry in kin):
        return True
    found = standing(entries)
    before = sum(entry.root < mine.root for entry in (*found.finished, *found.unfinished))
    return mine.root == number and before >= wanted
