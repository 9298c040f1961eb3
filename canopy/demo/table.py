"""The demo's last word: what was read, made and reached, and where it lies.

Promises: only what the stages themselves wrote down is shown; nothing is computed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Stage:
    """One command that ran."""

    name: str  # what it did, one word
    images: int  # that went through it, each as often as it did
    seconds: float  # wall time, start of the process included


def print_summary(
    stages: Sequence[Stage], data: Mapping[str, Any], report: Mapping[str, Any], paths: Mapping[str, Path]
) -> None:
    """Prints the summary to stdout.

    Args:
        stages: in the order in which they ran.
        data: canopy.json's content.
        report: the report's metrics.json.
        paths: what was made, by what it is.
    """
    # Tags and reasons are other people's words: brackets and colons in them are no commands to rich.
    console = Console(width=110, highlight=False, markup=False, emoji=False)
    found = data["images"]
    reasons = ", ".join(f"{count} {reason}" for reason, count in data["rejects"].items())
    facts = Table(box=SIMPLE, show_header=False, pad_edge=False)
    facts.add_row("images read", f"{found['found']:,}")
    facts.add_row("rejected", f"{found['rejected']:,}" + (f" ({reasons})" if reasons else ""))
    for name, split in data["splits"].items():
        facts.add_row(f"records, {name}", f"{split['records']:,}")
    console.print(facts)

    times = Table(box=SIMPLE, pad_edge=False)
    times.add_column("stage")
    for name in ("images", "seconds", "images/s"):
        times.add_column(name, justify="right")
    for stage in stages:
        rate = f"{stage.images / stage.seconds:,.0f}"
        times.add_row(stage.name, f"{stage.images:,}", f"{stage.seconds:.1f}", rate)
    times.add_row("all", "", f"{sum(stage.seconds for stage in stages):.1f}", "")
    console.print(times)

    scores = Table(box=SIMPLE, pad_edge=False)
    scores.add_column(f"{report['split']}, {report['records']:,} records")
    scores.add_column("F2", justify="right")
    scores.add_row("the model, a threshold for each tag", f"{report['f2']:.4f}")
    scores.add_row("the model, threshold 0.2", f"{report['f2_at_0.2']:.4f}")
    scores.add_row(f"always {' '.join(report['constant_tags'])}", f"{report['f2_constant']:.4f}")
    console.print(scores)

    wide = max(map(len, paths))
    for name, path in paths.items():  # no table: a path is there to be copied, however long it is
        print(f"{name:<{wide}}  {path}")
