"""A disk that several machines share, such as NFS: what each of them remembers of it may be a minute old.

Promises: a file that another machine has made or removed just now is seen as that, by the two things that a
network disk asks its server for each time (NFS: close-to-open consistency): opening a file, opening a folder.
On a disk of this machine alone both cost microseconds.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TypeVar

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
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
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


def _open_folder(folder: str) -> None:
    with contextlib.suppress(OSError):  # it may not be there either, or not to be listed
        if folder:
            asked(folder, _open)
        else:
            _open(os.curdir)


def _open(folder: str) -> None:
    os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
