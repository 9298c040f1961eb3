"""What a check says: a verdict and one sentence.

Promises: the verdict is `pass`, `look` (worth a look) or `fail` (do not trust the score before this is
understood); the sentence says what was found and, where it is no pass, what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["fail", "look", "pass"]

LEVEL = 0.01  # of significance, after correction: one false alarm in a hundred reports


@dataclass(frozen=True)
class Check:
    """One check's outcome."""

    name: str  # in metrics.json
    title: str  # what was checked, a few words
    verdict: Verdict
    sentence: str  # what was found and what to do
