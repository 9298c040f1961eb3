"""Counts, rates and lists as they stand in sentences.

Promises: pure functions; nothing is left out of a list without being counted.
"""

from __future__ import annotations

from collections.abc import Sequence

NAMED = 5  # names in a sentence


def several(count: int, thing: str) -> str:
    """So many of a thing, in words: `1 shard`, `1,000 shards`."""
    return f"{count:,} {thing}{'s' if count != 1 else ''}"


def rate(count: float, seconds: float) -> str:
    """How many a second: whole numbers from 10 on, two digits below, where pictures may take seconds each."""
    found = count / max(seconds, 1e-6)
    return f"{found:,.0f}" if found >= 10 else f"{found:.2g}"


def named(names: Sequence[str], most: int = NAMED) -> str:
    """A list for a sentence: the first few names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
