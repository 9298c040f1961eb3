"""Which files a folder, a glob or an address means.

Promises: files in a stable order, without opening one, each with the part of its path that nobody named;
links to folders are followed, never in circles; what cannot be looked at is one clear sentence (`UserError`),
and a link that leads nowhere a file.
"""

from __future__ import annotations

import errno
import glob
import os
import stat
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from beam_jobs import storage
from canopy import shared_disk
from canopy.cli import UserError
from canopy.progress import Meter

# Folders of systems and file servers: shadows of an archive's files (macOS), small copies of its images
# (Synology), what a disk's check has found, what was deleted, what once was there.
SYSTEMS = frozenset(
    {"__MACOSX", "@eaDir", "lost+found", "#recycle", "@Recycle", "$RECYCLE.BIN", "#snapshot", "~snapshot"}
)


class Found(NamedTuple):
    """A file."""

    path: str
    below: str  # the part of the path that the pattern leaves open; nothing of a file that is named


def is_passed_over(below: str) -> bool:
    """Whether a file is none of ours for a part of its path that nobody named: hidden, or one of `SYSTEMS`.

    Args:
        below: that part. Both kinds of slash part folders, as in archives made on Windows.
    """
    path = below.replace("\\", "/")
    parts = path.split("/")
    if not SYSTEMS.isdisjoint(parts):
        return True
    if "/." not in f"/{path}":  # at a glance: listing asks it of millions
        return False
    return any(part.startswith(".") and part not in (".", "..") for part in parts)


def files(pattern: str, meter: Meter) -> Iterator[Found]:
    """All files that a pattern means, of any kind; of a local folder that is passed over, the folder instead.

    Args:
        pattern: a folder (with all folders below), a glob or a file, local or an address.
        meter: counts the files.

    Raises:
        UserError: there is nothing of that name, or the system or the store refuses to show it.
    """
    if storage.is_remote(pattern):
        yield from _remote_files(pattern, meter)
    elif (mode := _mode(pattern)) is not None:
        found = _walk(os.path.normpath(pattern), "") if stat.S_ISDIR(mode) else [Found(pattern, "")]
        yield from meter.counted(found)
    elif glob.has_magic(pattern):
        for path in _matching(pattern, meter):
            # Path.is_dir would raise where a link leads nowhere that may be seen.
            if os.path.isdir(path):  # noqa: PTH112
                yield from meter.counted(_walk(os.path.normpath(path), _left_open(pattern, path)))
            else:
                yield _matched(pattern, path)
    else:
        raise UserError(f"--images: {pattern} does not exist")


def _matching(pattern: str, meter: Meter) -> list[str]:
    try:
        found = glob.iglob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
        return sorted(meter.counted(found))
    except RecursionError as error:
        raise UserError(
            f"--images: {pattern}: folders are nested too deep for **; name the folder above them"
        ) from error


def _matched(pattern: str, path: str) -> Found:
    """A file that a glob matches: its name at least is none that somebody named."""
    return Found(path, _left_open(pattern, path) or storage.split(path)[1])


def _left_open(pattern: str, path: str) -> str:
    """The parts of a path from the first that a glob does not spell; with its dot a hidden one is spelled."""
    named = takewhile(lambda part: part.startswith(".") or not glob.has_magic(part), _parts(pattern))
    return "/".join(_parts(path)[len(list(named)) :])


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]  # the system's glob drops a slash too many


def _mode(pattern: str) -> int | None:
    """What a local path is, as `st_mode` has it; None where there is nothing of that name."""
    with storage.explained(pattern, "look for"):
        try:
            return shared_disk.asked(pattern, os.stat).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG and glob.has_magic(pattern):
                return None  # what it stands for may be shorter
            raise


def _walk(folder: str, below: str) -> Iterator[Found]:
    """All files under a folder, through links to folders too, never in circles.

    Args:
        folder: where.
        below: what of its own path nobody named.
    """
    levels = [_entries(folder)]  # no recursion: folders may be nested deeper than Python's calls
    while levels:
        entry = next(levels[-1][1], None)
        if entry is None:
            levels.pop()
        elif not _is_folder(entry) or is_passed_over(entry.name):
            # Not looked into: it may be all of a disk's snapshots, or another user's.
            yield Found(entry.path, below + entry.path[len(folder) :])
        else:
            inner = _entries(entry.path)
            if all(inner[0] != level[0] for level in levels):
                levels.append(inner)


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


def _remote_files(pattern: str, meter: Meter) -> Iterator[Found]:
    """The same of a store: a name is taken as it is before it is taken for a glob, as on this machine."""
    whole = not pattern.endswith("/") and pattern.count("/") > 2
    if whole and storage.is_file(pattern):
        yield Found(pattern, "")
    elif found := storage.below(pattern, meter.counted):
        folder = pattern.rstrip("/")
        yield from (Found(path, path[len(folder) :]) for path in found)
    elif glob.has_magic(pattern):
        yield from (_matched(pattern, path) for path in storage.match(pattern, meter.counted))
    else:
        raise UserError(f"--images: {pattern} does not exist")
