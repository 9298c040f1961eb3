"""The folder in which a job's driver and workers leave what is not final, one for all jobs to an output.

Promises: what lies in a job's own folder there is of that job alone; a job that another one to the same
output has overtaken ends with a `UserError` instead of a mixture; what a killed job left goes away with the
next. On this machine, and on all that share a disk with its locks, a second job is refused while the first
lasts. In a store, which has no locks, and on a disk that knows none, the later job goes on and the earlier
one ends; so it is everywhere with the pods of one run, of which the earlier one's node may be gone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from beam_jobs import storage
from canopy import locks, shared_disk
from canopy.cli import UserError

LOCK = "lock"  # held while a job of this machine lasts
MARK = "run-"  # begins the name of one job's mark: gone as soon as a later job has begun
OWN = "job-"  # begins the name of a folder that only one job's driver and workers use


class Staging:
    """One job's hold on the folder."""

    def __init__(self, folder: str, output: str, job: str, run: str = "") -> None:
        """Names the folder; nothing is touched before `begin`.

        Args:
            folder: where it is to be.
            output: what the job writes, for messages.
            job: what it is called there.
            run: what the starts of one run have in common; "" where nothing tells.
        """
        self.folder = folder
        number = uuid.uuid4().hex
        # Not one for all jobs: the workers of a killed one may be at work for a while yet.
        self.own = storage.join(folder, f"{OWN}{number}")
        self.mark = storage.join(folder, f"{MARK}{number}")
        self._output, self._job, self._run = output, job, run.encode()
        self._held: IO[bytes] | None = None
        self._marked = False

    def begin(self, keep: Iterable[str] = ()) -> None:
        """Takes the folder over, and removes what earlier jobs left there.

        Args:
            keep: names of files that stay.

        Raises:
            UserError: another job of this machine is writing to the output.
        """
        storage.make_folder(self.folder)
        if not storage.is_remote(self.folder):
            with contextlib.suppress(OSError):  # where there are no locks, the mark has to do
                self._held = self._lock()
        # Before it looks for others: of two that begin at once, at least one then finds the other's.
        storage.write_bytes(self.mark, b"")
        self._marked = True
        self.clear(keep)

    def _lock(self) -> IO[bytes]:
        path = storage.join(self.folder, LOCK)
        busy = f"--output: another {self._job} is writing to {self._output}"
        try:
            held = locks.take(path, busy)
        except UserError:
            if not self._is_this_runs(path):
                raise
            # An earlier pod's, which has ended or lost its node. Of such a node a file server keeps the locks
            # for minutes, or until it is back.
            storage.delete([path])
            held = locks.take(path, busy)
        with contextlib.suppress(OSError):  # without it the run's next pod may be refused, no more
            os.ftruncate(held.fileno(), 0)
            os.write(held.fileno(), self._run)
            os.fsync(held.fileno())
        return held

    def _is_this_runs(self, lock: str) -> bool:
        with contextlib.suppress(UserError):  # its holder may be letting go of it
            return bool(self._run) and storage.read_bytes(lock) == self._run
        return False

    def clear(self, keep: Iterable[str] = ()) -> None:
        """Removes all that is in the folder, but for some files, the lock that is held and the mark."""
        kept = {*keep, storage.split(self.mark)[1], *([LOCK] if self._held else [])}
        if storage.is_remote(self.folder):
            paths = {storage.join(self.folder, name) for name in kept}
            storage.delete(path for path in storage.below(self.folder) if path not in paths)
            return
        for entry in Path(self.folder).iterdir():
            if entry.name in kept or entry.name.startswith(shared_disk.REMOVED):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)  # another job's workers may be at work in it
            else:
                storage.delete([str(entry)])

    def check(self) -> None:
        """Raises `UserError` where another job to the same output has begun since."""
        if not storage.is_still_there(self.mark):
            raise UserError(
                f"--output: another {self._job} to {self._output} began before this one was done, so this "
                "one ends: let the other end before you start one again"
            )

    def leave(self) -> None:
        """Lets the next job in: the mark goes, then the lock, then the folder where nothing is left in it."""
        if storage.is_remote(self.folder):
            storage.delete([self.mark])
            return
        is_overtaken = False
        try:
            Path(self.mark).unlink()
        except FileNotFoundError:
            is_overtaken = self._marked
        except OSError:
            pass
        if self._held and is_overtaken:
            locks.close(self._held)  # the file may be the other job's
        elif self._held:
            locks.release(self._held)
        self._held = None
        with contextlib.suppress(OSError):  # it holds what is another job's
            Path(self.folder).rmdir()


def beside(output: str) -> str:
    """Where a prediction's staging folder is."""
    return f"{output}.partial"


def of_prediction(output: str, run: str = "") -> Staging:
    """A prediction's staging folder; nothing is touched before `begun`."""
    return Staging(beside(output), output, "run", run)


@contextlib.contextmanager
def begun(staging: Staging) -> Iterator[Staging]:
    """Takes a prediction's staging folder over, which is there for as long as the block lasts.

    Raises:
        UserError: another run of this machine is writing to the output, or the folder holds what none left.
    """
    _refuse_foreign(staging.folder)
    try:
        staging.begin()
        storage.make_folder(staging.own)
        yield staging
    finally:
        if storage.is_remote(staging.own):
            storage.delete(storage.below(staging.own))
        else:
            shutil.rmtree(staging.own, ignore_errors=True)
        staging.leave()


def _refuse_foreign(folder: str) -> None:
    """What lies in the folder is removed, so it has to be what runs leave there."""
    if storage.is_remote(folder):
        names = {path.removeprefix(f"{folder}/").split("/")[0] for path in storage.below(folder)}
    else:
        names = set()
        # Where a file is in its place, its making tells; another run may just take it away.
        with storage.explained(folder, "list"), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            names = {path.name for path in Path(folder).iterdir()}
    known = (MARK, OWN, *shared_disk.REMOVED)
    foreign = sorted(name for name in names - {LOCK} if not name.startswith(known))
    if foreign:
        raise UserError(
            f"--output: {storage.join(folder, foreign[0])} is not Canopy's, and whatever lies in {folder} is "
            "removed: move it away, or name another output"
        )
