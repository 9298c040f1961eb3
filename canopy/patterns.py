"""Folders whose names TensorFlow would take for patterns.

Promises: an export on this machine can be loaded whatever its folder is called; nothing of it is copied.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

SPECIAL = frozenset("[\\")  # a star and a question mark stand for themselves, too


@contextlib.contextmanager
def plain(folder: str) -> Iterator[str]:
    """Another path of a local folder where its own has brackets; any other path as it is.

    TensorFlow's RestoreV2 looks for a model's variables by a pattern made of their path: the brackets of
    `rate [1e-3]` would stand for one character.

    Args:
        folder: local, or in a store, which knows of no other paths.
    """
    if "://" in folder or SPECIAL.isdisjoint(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="canopy-model-") as place:
        link = Path(place, "export")
        link.symlink_to(Path(folder).absolute())
        yield str(link)
