"""Whether a folder can be written to, found before hours of work.

Promises: nothing is made or changed; a path in a store is not looked at.
"""

from __future__ import annotations

import os
from pathlib import Path

from canopy.cli import UserError


def check_folder(flag: str, path: str) -> None:
    """Finds out whether a folder can be made and written to.

    Args:
        flag: that named it, for the sentence.
        path: local, or in a store.

    Raises:
        UserError: where it is empty, or where it, or what is above it, is a file or may not be written to.
    """
    if not path:
        raise UserError(f"{flag} is empty: it must name a folder")
    if "://" in path:
        return
    folder = Path(path).absolute()
    there = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    if not there.is_dir():
        raise UserError(f"{flag} {path}: {'it' if there == folder else there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{flag} {path}: {there} cannot be written to")
