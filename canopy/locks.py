"""Locks of this machine: one process at a time, however it ends.

Promises: the kernel lets go of a lock with the process that holds it, even one that is killed; nobody has to
clean up after it. Of other machines a lock knows what its disk does: NFS mostly keeps it for all of them, and
for a while for one that is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from canopy.cli import UserError

TRIES = 100  # of a lock whose file goes away meanwhile


def take(path: str, busy: str) -> IO[bytes]:
    """Takes a lock of this machine; it is held until the file is closed or the process ends, however it ends.

    Args:
        path: a local file, made with its folder; who holds the lock may remove both.
        busy: the sentence for when another process holds it.

    Raises:
        UserError: another process holds it.
        OSError: the file system has no locks, or the file cannot be made, or something else has its name.
    """
    for _ in range(TRIES):
        with contextlib.suppress(FileExistsError):  # also raised where the folder goes just then
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as closing:
            file = closing.enter_context(open(path, "ab", opener=_plain))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(busy) from error
            # Its last holder may have removed it since: then the next to come makes and locks another.
            if os.path.samestat(os.fstat(file.fileno()), Path(path).stat()):
                closing.pop_all()
                return file
    raise UserError(busy)


def _plain(path: str, flags: int) -> int:
    """Opens a file and neither what a link leads to nor a pipe, at whose other end nobody might ever be.

    In a folder that everybody may write to, such as that of temporary files, both may be another user's.
    """
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


@contextlib.contextmanager
def holding(path: str, busy: str) -> Iterator[None]:
    """Holds a lock for as long as the block lasts; see `take`. Its file goes with it."""
    file = take(path, busy)
    try:
        yield
    finally:
        release(file)


def release(file: IO[bytes]) -> None:
    """Lets go of what `take` gave, and removes its file where that can be: one that stays does no harm."""
    with contextlib.suppress(OSError):
        Path(file.name).unlink()
    close(file)


def close(file: IO[bytes]) -> None:
    """Lets go of what `take` gave, and leaves its file. Where the disk is gone, so is the lock."""
    with contextlib.suppress(OSError):
        file.close()
