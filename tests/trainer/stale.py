"""What a machine remembers of a disk that another one changes, without such a disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf

from canopy import shared_disk


def remember(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a name that was seen stays there for who looks for it, though not for who opens it."""
    for name in ("exists", "isdir"):
        look: Callable[[str], bool] = getattr(tf.io.gfile, name)
        seen: set[str] = set()

        def remembered(path: str, look: Callable[[str], bool] = look, seen: set[str] = seen) -> bool:
            if look(path):
                seen.add(str(path))
            return str(path) in seen

        monkeypatch.setattr(tf.io.gfile, name, remembered)


def hide(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """From now on a name is not there, until it is asked for anew."""
    hidden = path.rename(path.with_name(f"{path.name}.hidden"))

    def look_for(asked: str | Path) -> None:
        if Path(asked).is_relative_to(path) and hidden.exists():
            hidden.rename(path)

    monkeypatch.setattr(shared_disk, "look_for", look_for)
