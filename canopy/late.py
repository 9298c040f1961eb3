"""Names that another machine has just made on a disk that both have mounted.

Promises: a name that is not known here is asked for anew, at its server; one that its folder lists is waited
for, two minutes at most; one that nobody has made costs the listing of a folder, and no time.

An NFS client remembers for up to a minute that it has looked a name up in vain (nfs(5), acdirmax), and others
do likewise. It asks again when the folder is opened; one that does not still lists what it cannot find yet.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

log = logging.getLogger("canopy")

LATE_SECONDS = 125.0  # Azure's blobfuse2 remembers for 120
LOOK_SECONDS = 1.0  # between two looks


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
