"""A disk that several machines share, such as NFS: what each of them remembers of it may be a minute old.

Promises: a file that another machine has made or removed just now is seen as that, by the two things that a
network disk asks its server for each time (NFS: close-to-open consistency): opening a file, opening a folder.
On a disk of this machine alone both cost microseconds. Of disks that do not ask, a name that its folder lists
is waited for; one that nobody has made costs no time.

An NFS client remembers for up to a minute that it has looked a name up in vain (nfs(5), acdirmax).
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

log = logging.getLogger("canopy")

LATE_SECONDS = 125.0  # Azure's blobfuse2 remembers for 120
LOOK_SECONDS = 1.0  # between two looks

# Begin the names that removed files have there while a process of the same machine has them open; these go by
# themselves, and cannot be removed before.
REMOVED = (".nfs", ".fuse_hidden")

_Seen = TypeVar("_Seen")


def is_still_there(path: str) -> bool:
    """Whether there is a file, which another machine may have removed since this one saw it.

    Raises:
        OSError: what opening it raises, unless it is not there.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.close(os.open(path, os.O_RDONLY))
        return True
    return False


def asked(path: str, look: Callable[[str], _Seen]) -> _Seen:
    """What a look for a path gives; where there is no such file, after its folder was opened.

    That a name was looked for in vain is remembered, and even opening the file would be answered by it.

    Args:
        path: what is looked for.
        look: raises `FileNotFoundError` where it is not there.
    """
    try:
        return look(path)
    except FileNotFoundError:
        _open_folder(os.path.dirname(path))  # noqa: PTH120 - of a link, the folder that it lies in
        return look(path)


def look_for(path: str | Path) -> None:
    """Returns when whether a name is there can be asked; of an object's name a store knows at once.

    Args:
        path: of a file or a folder, local or in a store.
    """
    if "://" in str(path):
        return
    local, deadline = Path(path), time.monotonic() + LATE_SECONDS
    is_told = False
    # Listing it may have made it known. A list may itself be late, of a name that is gone.
    while _is_unknown(local) and _is_listed(local) and _is_unknown(local) and time.monotonic() < deadline:
        if not is_told:
            log.warning("%s is listed and cannot be found yet: another machine has just made it", path)
        is_told = True
        time.sleep(LOOK_SECONDS)


def _open_folder(folder: str) -> None:
    with contextlib.suppress(OSError):  # it may not be there either, or not to be listed
        if folder:
            asked(folder, _open)
        else:
            _open(os.curdir)


def _open(folder: str) -> None:
    os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))


def _is_unknown(path: Path) -> bool:
    try:
        os.lstat(path)  # of a link itself: what it leads to may never be there
    except FileNotFoundError:
        return True
    except OSError:
        return False  # of another reason, which whoever opens it will tell
    return False


def _is_listed(path: Path) -> bool:
    if _is_unknown(path.parent) and path.parent != path:
        look_for(path.parent)
    try:
        return path.name in os.listdir(path.parent)  # noqa: PTH208 (a folder of thousands, as plain names)
    except OSError:
        return False
