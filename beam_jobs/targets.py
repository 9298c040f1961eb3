"""The files that a prediction writes: where they really lie, and whether they can be written.

Promises: what would spoil the last step is one sentence (`UserError`) before anything is scored; a link stays
a link, and what it names is written; nothing is left behind by looking.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import replace
from itertools import product
from pathlib import Path

from beam_jobs import staging, storage
from beam_jobs.predict_settings import Settings
from canopy.cli import UserError


def rejects_path(output: str) -> str:
    """Where the rejects of an output are listed: beside it."""
    return f"{output}.rejects.jsonl"


def resolved(job: Settings) -> Settings:
    """The settings with the files that are really to be written.

    Args:
        job: as the flags say.

    Raises:
        UserError: a target is a folder or no regular file, or one file takes a name that another needs.
    """
    scores = _target("--scores", job.scores) if job.scores else None
    job = replace(job, output=_target("--output", job.output), scores=scores)
    _target("--output", rejects_path(job.output))
    if job.scores:
        _check_apart(job.scores, job.output)
    return job


def _check_apart(scores: str, output: str) -> None:
    """Refuses scores that would replace or be replaced by what the output is made of, or stand in its way."""
    place, wanted, rejects = _place(scores), _place(output), _place(rejects_path(output))
    if place == wanted:
        raise UserError(f"--scores and --output are the same file, {output}")
    if place == rejects:
        raise UserError(f"--scores {scores} is the file that lists the rejects of --output")
    parts = [f"{path}{storage.PART}" for path in (place, wanted, rejects)]
    needed = (wanted, rejects, *parts[1:], staging.beside(wanted))
    for mine, other in product((place, parts[0]), needed):
        # One may lie below the other as well, and no file is a folder.
        if f"{mine}/".startswith(f"{other}/") or f"{other}/".startswith(f"{mine}/"):
            raise UserError(f"--scores {scores} takes a name that --output {output} needs")


def _target(flag: str, path: str) -> str:
    """The file to write, of a link the one that it names: as every shell and editor does it.

    A file is written by renaming another one to its name, which would take away whatever has it.
    """
    if storage.is_remote(path):
        return path
    with storage.explained(path, "write"):
        try:
            mode = Path(path).stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            mode = stat.S_IFREG  # to be made; where that cannot be, the folder's making tells
        if stat.S_ISDIR(mode):
            raise UserError(f"{flag}: {path} is a folder, and a file is to be written there")
        if not stat.S_ISREG(mode):
            raise UserError(f"{flag}: {path} is a device or a pipe, and only a file can be written whole")
        return _place(path) if Path(path).is_symlink() else path


def _place(path: str) -> str:
    """The one spelling of a file's place, through links."""
    return path if storage.is_remote(path) else os.path.realpath(path)


def check_writable(path: str) -> None:
    """Begins a file as its writing will: whether it may be there is told before hours of scoring.

    Args:
        path: of the file; its folder is made.

    Raises:
        UserError: it cannot be written.
    """
    storage.make_folder(storage.split(path)[0])
    part = f"{path}{storage.PART}"
    if storage.is_remote(path):
        storage.write_bytes(part, b"")
        with contextlib.suppress(UserError):  # who may write somewhere may not always remove
            storage.delete([part])
        return
    with storage.explained(path, "write"):
        Path(part).touch()
        Path(part).unlink()
