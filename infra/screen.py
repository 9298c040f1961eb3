"""What a person sees while a Job runs: its log on stdout, how it stands on stderr.

Promises: stdout holds log lines and the summary alone, so that it can be piped; the standing is one line kept
at the bottom of a terminal, and elsewhere a line whenever it changes or a minute has passed.
"""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

REPEAT_SECONDS = 60.0  # a log shows life, and stays readable


class Screen:
    """Prints from several threads; use as a context manager."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._shown, self._when = "", 0.0

    def __enter__(self) -> Screen:
        console = Console(stderr=True)
        if sys.stderr.isatty() and not console.is_dumb_terminal:
            self._live = Live(
                console=console,
                transient=True,
                refresh_per_second=4,
                redirect_stdout=sys.stdout.isatty(),
                redirect_stderr=True,
            )
            self._live.start()
        return self

    def log(self, line: str) -> None:
        """Passes on a line of a Job's log."""
        with self._lock:
            print(line, flush=True)

    def note(self, text: str) -> None:
        """Says something worth reading once."""
        with self._lock:
            print(text, file=sys.stderr, flush=True)

    def standing(self, text: str) -> None:
        """Shows how things stand; may be called as often as is handy."""
        now = time.monotonic()
        with self._lock:
            if self._live is not None:
                line = Table.grid(padding=(0, 1))  # within a Spinner a Text of its own would be wrapped
                line.add_row(Spinner("dots"), Text(text, no_wrap=True, overflow="ellipsis"))
                self._live.update(line)
            elif text != self._shown or now - self._when >= REPEAT_SECONDS:
                print(text, file=sys.stderr, flush=True)
                self._when = now
            self._shown = text

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
