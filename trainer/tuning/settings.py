"""The flags of `trainer.tune`, checked.

Promises: `parse` returns `Settings` that make sense together, or raises `UserError` with one sentence.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from canopy.cli import Parser, UserError
from trainer import cluster, flags
from trainer.flags import flag
from trainer.tuning import search, storage


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one worker of a search; each field but the last two is the flag of the same name."""

    data: str = flag("records to train on", metavar="FOLDER")
    study: str = flag(
        "what the workers share: a file on a shared disk (NFS will do), or a database's address "
        "(sqlite:///FILE, or postgresql://USER:PASSWORD@HOST/NAME where its driver, psycopg[binary], is "
        "installed: only SQLite's comes with Canopy)",
        metavar="FILE|URL",
    )
    study_name: str = flag("name of the study in it", "canopy")
    output: str = flag(
        "folder of the trials on a shared disk; beside the study's file where it is not given",
        "",
        metavar="FOLDER",
    )
    trials: int = flag("trials, over all workers", 30)
    timeout: float = flag(
        "when this worker ends; the trial it is at is kept and may be taken up again; 0: no limit",
        0.0,
        metavar="SECONDS",
    )
    local_workers: int = flag("training processes of a trial", 1)
    max_restarts: int = flag("restarts of a trial's processes after a loss", 1)
    max_failures: int = flag("failed trials in a row that end this worker", 3)
    stale_after: float = flag(
        "silence after which a worker counts as dead and its trial is tried again", 120.0, metavar="SECONDS"
    )
    pruner: Literal["median", "hyperband", "none"] = flag("what ends a bad trial after an epoch", "median")
    keep: Literal["best", "all"] = flag(
        "best: only the best trial's export stays, of the others metrics and logs", "best"
    )
    seed: int = flag("seed of the search", 0)
    space: tuple[str, ...]  # NAME=VALUES each
    fixed: tuple[str, ...]  # trainer.task's flags for all trials


def parse(argv: Sequence[str] | None = None) -> Settings:
    """Turns flags into checked `Settings`.

    Args:
        argv: the flags; None for the process' own.

    Raises:
        UserError: where a flag is unknown or a value cannot be used.
    """
    found, fixed = flags.before_task(_parser(), argv)
    settings = Settings(**found | {"space": tuple(found["space"])}, fixed=fixed)
    _check(settings)
    return settings if settings.output else replace(settings, output=_beside(settings.study))


def _beside(study: str) -> str:
    """The folder of trials where none is given."""
    folder = storage.beside(study)
    if folder is None:
        raise UserError(
            "--output is missing: a study in a database needs the folder of its trials, on a disk that all "
            "workers share"
        )
    return str(folder)


def _check(settings: Settings) -> None:
    for name in ("data", "study", "study_name"):
        if not getattr(settings, name):
            raise UserError(f"--{name} is empty")
    for name in ("study", "output"):
        if getattr(settings, name).startswith(("gs://", "s3://", "http://", "https://")):
            raise UserError(
                f"--{name} {storage.shown(getattr(settings, name))}: a search writes to a disk that all its "
                "workers share, not to object storage"
            )
    path = storage.journal_path(settings.study)
    if path is not None and os.path.isdir(path):  # noqa: PTH112 - Path's raises where it may not look
        raise UserError(f"--study {path} is a folder: name a file in it")
    for name in ("trials", "local_workers", "max_failures"):
        if getattr(settings, name) < 1:
            raise UserError(f"--{name} must be at least 1, and is {getattr(settings, name)}")
    cluster.check_room(settings.local_workers)
    if settings.max_restarts < 0 or settings.seed < 0:
        raise UserError("--max_restarts and --seed must not be negative")
    if not 0 <= settings.timeout < math.inf:
        raise UserError(f"--timeout must be 0 (no limit) or seconds, and is {settings.timeout}")
    if not 5 <= settings.stale_after < math.inf:
        raise UserError(f"--stale_after must be at least 5 seconds, and is {settings.stale_after}")


def _parser() -> Parser:
    space = ", ".join(f"{name}={text}" for name, text in search.chosen([], []).texts.items())
    parser = Parser(
        "python -m trainer.tune",
        "Searches for the flags of trainer.task that score the best F2 on the validation split. The same "
        "command, started on several machines or GPUs (CUDA_VISIBLE_DEVICES), shares the work. Behind -- "
        "stand flags of trainer.task that all trials have in common; they are not searched. "
        f"Searched otherwise: {space}.",
    )
    flags.add(parser, Settings)
    parser.add_argument(
        "--space",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="a flag to search, again for each: LOW..HIGH, LOW..HIGH:log, LOW..HIGH:STEP or A,B,C",
    )
    return parser
