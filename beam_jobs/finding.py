"""Which files a folder, a glob or an address means.

Promises: files in a stable order, without opening one; links to folders are followed, never in
circles; what cannot be looked at is one clear sentence (`UserError`), and a link that leads nowhere a file.
"""

from __future__ import annotations

import errno
import glob
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from beam_jobs import storage
from canopy.cli import UserError


def files(pattern: str) -> Iterator[str]:
    """All files that a pattern means, of any kind.

    Args:
        pattern: a folder (with all folders below), a glob or a file, local or an address.

    Raises:
        UserError: there is nothing of that name, or the system or the store refuses to show it.
    """
    if storage.is_remote(pattern):
        yield from _remote_files(pattern)
    elif (mode := _mode(pattern)) is not None:
        yield from _walk(os.path.normpath(pattern)) if stat.S_ISDIR(mode) else [pattern]
    elif glob.has_magic(pattern):
        for path in _matching(pattern):
            # Path.is_dir would raise where a link leads nowhere that may be seen.
            yield from _walk(os.path.normpath(path)) if os.path.isdir(path) else [path]  # noqa: PTH112
    else:
        raise UserError(f"--images: {pattern} does not exist")


def _matching(pattern: str) -> list[str]:
    try:
        return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    except RecursionError as error:
        raise UserError(
            f"--images: {pattern}: folders are nested too deep for **; name the folder above them"
        ) from error


def _mode(pattern: str) -> int | None:
    """What a local path is, as `st_mode` has it; None where there is nothing of that name."""
    with storage.explained(pattern, "look for"):
        try:
            return Path(pattern).stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG and glob.has_magic(pattern):
                return None  # what it stands for may be shorter
            raise


def _walk(folder: str) -> Iterator[str]:
    """All files under a folder, through links to folders too, never in circles."""
    levels = [_entries(folder)]  # no recursion: folders may be nested deeper than Python's calls
    while levels:
        entry = next(levels[-1][1], None)
        if entry is None:
            levels.pop()
        elif not _is_folder(entry):
            yield entry.path
        elif not entry.name.startswith("."):
            below = _entries(entry.path)
            if all(below[0] != level[0] for level in levels):
                levels.append(below)


def _entries(folder: str) -> tuple[tuple[int, int], Iterator[os.DirEntry[str]]]:
    """What tells a folder from all others, and what is in it, sorted."""
    with storage.explained(folder, "list"):
        status = Path(folder).stat()
        with os.scandir(folder) as entries:
            return (status.st_dev, status.st_ino), iter(sorted(entries, key=lambda entry: entry.name))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link that cannot be followed is an unreadable file."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _remote_files(pattern: str) -> Iterator[str]:
    if glob.has_magic(pattern):
        yield from storage.match(pattern)
        return
    if not pattern.endswith("/") and pattern.count("/") > 2 and (found := storage.match(pattern)):
        yield from found
        return
    found = storage.match(pattern.rstrip("/") + "/**")
    if not found:
        raise UserError(f"--images: {pattern} does not exist")
    yield from found
