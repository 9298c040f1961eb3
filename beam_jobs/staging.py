"""The folder beside a prediction's output in which one run's workers leave their scores.

Promises: what lies in it is of this run alone; a run that another one to the same output has overtaken ends
with a `UserError` instead of a mixture; what an interrupted run left goes away with the next. On this
machine a second run is refused while the first lasts. In a store, which has no locks, and on a disk that
knows none, the later run goes on and the earlier one ends.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from beam_jobs import storage
from canopy import locks
from canopy.cli import UserError

LOCK = "lock"  # in the folder of all runs to an output: held while one of this machine lasts
MARK = "run"  # in a run's own: gone as soon as a later run to the same output has begun


class Staging:
    """One run's own folder; see `begun`, which makes it and removes it."""

    def __init__(self, output: str) -> None:
        """Names the folder; nothing is touched before `begin`."""
        self._output = output
        self._all = f"{output}.partial"
        self.folder = storage.join(self._all, uuid.uuid4().hex)
        self._mark = storage.join(self.folder, MARK)
        self._held: IO[bytes] | None = None

    def begin(self) -> None:
        """Makes the folder, and removes those of earlier runs.

        Raises:
            UserError: another run of this machine is writing to the output.
        """
        if not storage.is_remote(self._all):
            storage.make_folder(self._all)
            with contextlib.suppress(OSError):  # where there are no locks, the mark has to do
                busy = f"--output: another run is writing to {self._output}"
                self._held = locks.take(storage.join(self._all, LOCK), busy)
        storage.make_folder(storage.join(self.folder, "progress"))
        # Before it looks for others: of two that begin at once, at least one then finds the other's.
        storage.write_bytes(self._mark, b"")
        self._remove_earlier()

    def _remove_earlier(self) -> None:
        if storage.is_remote(self._all):
            found = storage.below(self._all)
            storage.delete(path for path in found if not path.startswith(f"{self.folder}/"))
            return
        for entry in Path(self._all).iterdir():
            if entry.name == LOCK or entry == Path(self.folder):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)

    def check(self) -> None:
        """Raises `UserError` where another run to the same output has begun since."""
        if not storage.exists(self._mark):
            raise UserError(
                f"--output: another run to {self._output} began before this one was done, so this one ends: "
                "let the other end before you start one again"
            )

    def end(self) -> None:
        """Removes the folder, and lets the next run in."""
        if storage.is_remote(self._all):
            storage.delete(storage.below(self.folder))
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._held:
            locks.release(self._held)
        with contextlib.suppress(OSError):  # it holds what is another run's
            Path(self._all).rmdir()


@contextlib.contextmanager
def begun(output: str) -> Iterator[Staging]:
    """A staging folder beside an output, there for as long as the block lasts."""
    staging = Staging(output)
    try:
        staging.begin()
        yield staging
    finally:
        staging.end()
