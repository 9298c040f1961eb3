"""What a check says: a verdict and one sentence.

Promises: the verdict is `pass`, `look` (worth a look) or `fail` (do not trust the score before this is
understood); the sentence says what was found and, where it is no pass, what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["fail", "look", "pass"]

LEVEL = 0.01  # of significance, after correction: one false alarm in a hundred reports
NAMED = 5  # names in a sentence


@dataclass(frozen=True)
class Check:
    """One check's outcome."""

    name: str  # in metrics.json
    title: str  # what was checked, a few words
    verdict: Verdict
    sentence: str  # what was found and what to do


def named(names: Sequence[str], most: int = NAMED) -> str:
    """A list for a sentence: the first few names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
