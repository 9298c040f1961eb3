"""A folder of this user's own among the temporary files, for what outlasts a process.

Promises: its name is known beforehand, and nobody else can have put anything there; where somebody tried,
there is no such folder.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def folder() -> Path | None:
    """The folder, made where it was not there; None where it cannot be made, or is another's or a link."""
    path = Path(tempfile.gettempdir(), f"canopy-{os.getuid()}")
    with contextlib.suppress(OSError):
        path.mkdir(mode=0o700, exist_ok=True)
        if not path.is_symlink() and path.stat().st_uid == os.getuid():
            return path
    return None
