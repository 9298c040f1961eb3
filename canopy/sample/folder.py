"""A folder that appears whole or not at all, however its writer ends.

Promises: `draft` hands out a hidden folder beside the final one, and takes it away unless it was put
in place; one that a killed run left behind goes at the next run, while one that a living process writes is
left alone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def draft(output: Path) -> Iterator[Path]:
    """A fresh folder beside `output`; what is still there when the context ends is removed.

    Being beside it, it lies in the same file system, where a rename is one step.

    Args:
        output: the final folder, which need not exist. Its parent must.

    Raises:
        OSError: the parent is not writable.
    """
    prefix = f".{output.name}.partial-"
    _sweep(output.parent, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=output.parent))
    # The kernel drops the lock with the process, even one killed outright: so the next run can tell.
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder.chmod(0o755)  # mkdtemp's 0700 would lock other users out of the finished folder
        yield folder
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(folder: Path, output: Path) -> None:
    """Renames a whole draft to its final name; what stood there before goes.

    Args:
        folder: from `draft(output)`.
        output: the final folder.

    Raises:
        OSError: a rename failed; the older folder is then where it was, or gone, never mixed with the new.
    """
    if not output.exists():
        folder.rename(output)
        return
    with draft(output) as aside:
        output.rename(aside / "old")
        folder.rename(output)


def _sweep(parent: Path, prefix: str) -> None:
    """Removes drafts that no living process writes."""
    for entry in list(os.scandir(parent)):
        if not (entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False)):
            continue
        lock = os.open(entry.path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(entry.path, ignore_errors=True)
        finally:
            os.close(lock)
