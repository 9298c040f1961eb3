"""The flags of `trainer.tune`, checked.

Promises: `parse` returns `Settings` that make sense together, or raises `UserError` with one sentence.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from canopy.cli import Parser, UserError
from trainer import search, storage


@dataclass(frozen=True)
class Settings:
    """Settings of one worker of a search."""

    data: str  # folder of records, local or gs://
    study: str  # a file, or a database's address
    study_name: str  # within the study's file or database
    output: str  # folder of the trials, on a disk that all workers share
    trials: int  # over all workers
    timeout: float  # seconds; 0: none
    space: tuple[str, ...]  # NAME=VALUES each
    local_workers: int  # training processes a trial
    max_restarts: int  # of a trial's processes
    max_failures: int  # in a row before this worker ends
    stale_after: float  # seconds of silence after which a worker counts as dead
    pruner: Literal["median", "hyperband", "none"]
    keep: Literal["best", "all"]
    seed: int
    fixed: tuple[str, ...]  # trainer.task's flags for all trials


def parse(argv: Sequence[str] | None = None) -> Settings:
    """Turns flags into checked `Settings`.

    Args:
        argv: the flags; None for the process' own.

    Raises:
        UserError: where a flag is unknown or a value cannot be used.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    at = given.index("--") if "--" in given else len(given)
    flags = vars(_parser().parse_args(given[:at]))
    space = tuple(flags.pop("space"))
    settings = Settings(**flags, space=space, fixed=tuple(given[at + 1 :]))
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
                f"--{name} {getattr(settings, name)}: a search writes to a disk that all its workers share, "
                "not to object storage"
            )
    path = storage.journal_path(settings.study)
    if path is not None and os.path.isdir(path):  # noqa: PTH112 - Path's raises where it may not look
        raise UserError(f"--study {path} is a folder: name a file in it")
    for name in ("trials", "local_workers", "max_failures"):
        if getattr(settings, name) < 1:
            raise UserError(f"--{name} must be at least 1, and is {getattr(settings, name)}")
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
    parser.add_argument("--data", required=True, metavar="FOLDER", help="records to train on")
    parser.add_argument(
        "--study",
        required=True,
        metavar="FILE|URL",
        help="what the workers share: a file on a shared disk (NFS will do), or a database's address "
        "(sqlite:///FILE, or postgresql://USER:PASSWORD@HOST/NAME where its driver, psycopg[binary], is "
        "installed: only SQLite's comes with Canopy)",
    )
    parser.add_argument("--study_name", default="canopy", metavar="TEXT", help="name of the study in it")
    parser.add_argument(
        "--output",
        default="",
        metavar="FOLDER",
        help="folder of the trials on a shared disk; beside the study's file where it is not given",
    )
    parser.add_argument("--trials", type=int, default=30, metavar="N", help="trials, over all workers")
    parser.add_argument(
        "--timeout",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="when this worker ends; the trial it is at is kept and may be taken up again; 0: no limit",
    )
    parser.add_argument(
        "--space",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="a flag to search, again for each: LOW..HIGH, LOW..HIGH:log, LOW..HIGH:STEP or A,B,C",
    )
    parser.add_argument(
        "--local_workers", type=int, default=1, metavar="N", help="training processes of a trial"
    )
    parser.add_argument(
        "--max_restarts",
        type=int,
        default=1,
        metavar="N",
        help="restarts of a trial's processes after a loss",
    )
    parser.add_argument(
        "--max_failures", type=int, default=3, metavar="N", help="failed trials in a row that end this worker"
    )
    parser.add_argument(
        "--stale_after",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="silence after which a worker counts as dead and its trial is tried again",
    )
    parser.add_argument(
        "--pruner",
        choices=("median", "hyperband", "none"),
        default="median",
        help="what ends a bad trial after an epoch",
    )
    parser.add_argument(
        "--keep",
        choices=("best", "all"),
        default="best",
        help="best: only the best trial's export stays, of the others metrics and logs",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the search")
    return parser
