"""Progress of long work: a bar on a terminal, a line every so often in a log.

Promises: never more than one line each `LINE_SECONDS` where stderr is no terminal, and nothing else on
stdout than what a command prints itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from canopy.cli import to_stderr
from canopy.phrases import rate

if TYPE_CHECKING:  # workers, which show nothing, import this by way of others
    from rich.progress import Progress

LINE_SECONDS = 10.0  # a log shows life, and stays readable
COUNTED = 1_000  # units that `counted` passes on between two updates: a bar's update costs more than most

_Unit = TypeVar("_Unit")


class Meter:
    """Counts units of work and shows how many, how fast and how long still.

    Use as a context manager. `update` may be called as often as is handy: showing is rate-limited.
    """

    def __init__(
        self,
        title: str,
        total: int | None,
        unit: str = "images",
        *,
        done: int = 0,
        say: Callable[[str], object] | None = None,
    ) -> None:
        """Prepares a meter.

        Args:
            title: what is being done, a verb in few words.
            total: units to do, or None where nobody knows.
            unit: the plural of what is counted.
            done: units that an earlier start has done, which do not count towards this one's speed.
            say: takes the lines where there is no bar; by default they go to stderr.
        """
        self.title, self.total, self.unit = title, total, unit
        self.done = self._first = done
        self._say = say or to_stderr
        self._start = self._last_line = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Meter:
        if sys.stderr.isatty() and (bar := _bar()) is not None:
            self._bar = bar
            bar.start()
            bar.add_task(self.title, total=self.total, completed=self.done, rate="")
        return self

    def update(self, done: int, note: str = "") -> None:
        """Says that `done` units of work are complete in all.

        Args:
            done: units complete, those of an earlier start included.
            note: a few words more, such as the loss.
        """
        self.done = done
        now = time.monotonic()
        new, seconds = done - self._first, now - self._start
        speed = f"{rate(new, seconds)} {self.unit}/s"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, rate=f"{speed} {note}")
        elif now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            of = f" of {self.total:,}" if self.total is not None else ""
            left = f", {(self.total - done) * seconds / new:,.0f} s left" if self.total and new > 0 else ""
            more = f", {note}" if note else ""
            self._say(f"{self.title}: {done:,}{of} {self.unit}, {speed}{left}{more}")

    def add(self, new: int) -> None:
        """Shows progress by so many units more."""
        self.update(self.done + new)

    def counted(self, units: Iterable[_Unit]) -> Iterator[_Unit]:
        """Passes units of work on, each of which is complete when the next one is asked for."""
        for unit in units:
            yield unit
            self.done += 1
            if self.done % COUNTED == 0:
                self.update(self.done)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _bar() -> Progress | None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if console.is_dumb_terminal:  # which could not redraw a line
        return None
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
