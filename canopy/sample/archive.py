"""Writes the sample archive: names, tables, files, and a folder that is either whole or not there.

Promises: the same settings give the same bytes in every file, however many processes draw; the folder
appears under its name only when every file is in it, so an interrupted run leaves nothing that looks whole;
a folder that already holds the archive of the same settings is reused; a folder that holds anything else is
never touched.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from canopy import children, tables
from canopy.cli import UserError
from canopy.machine import cores
from canopy.progress import Meter
from canopy.sample.chip import draw_chip
from canopy.sample.encode import ODD_KINDS, Fault, Kind, encode, spoil
from canopy.sample.folder import draft, put_in_place
from canopy.sample.tags import CONSTANT_TAGS, TAGS, draw_tags, overlook

GENERATOR = 4  # goes up when the same settings begin to give other bytes: old archives are then not reused

MARKER = "sample.json"
TRAIN, TEST = "train-jpg", "test-jpg"
LABELS_CSV, SUBMISSION_CSV, README = "train_v2.csv", "sample_submission_v2.csv", "README.txt"
CONTENTS = {MARKER, TRAIN, TEST, LABELS_CSV, SUBMISSION_CSV, README}

_LABELLED, _UNLABELLED = range(2)  # which half of the archive, in the key of a chip's random streams
_TAGS_PART, _ODD_PART = 1000, 1001  # streams apart from those `draw_chip` counts up from 0
_ALONE = 48  # fewer chips than this a process are drawn sooner than the process starts


@dataclass(frozen=True)
class SampleSettings:
    """What the archive's bytes depend on, and how many processes make them.

    Raises:
        UserError: for a number out of range, when made.
    """

    seed: int = 0  # 0 or more; another one gives other chips, tags and odd files
    labelled: int = 1200  # chips in train-jpg, the odd and the broken ones among them
    unlabelled: int = 300  # chips in test-jpg, odd ones among them, none broken
    size: int = 256  # pixels a side, 32 or more
    odd: int = 3  # labelled files of each odd kind (a third as many unlabelled, at least one if any)
    broken: int = 3  # labelled files that no decoder takes: truncated, not a JPEG, empty, in turn
    workers: int = field(default_factory=cores)  # processes; the bytes don't depend on it

    def __post_init__(self) -> None:
        """Refuses what cannot be drawn."""
        lowest = {"seed": 0, "labelled": 1, "unlabelled": 0, "size": 32, "odd": 0, "broken": 0, "workers": 1}
        for name, least in lowest.items():
            if getattr(self, name) < least:
                raise UserError(f"--{name} {getattr(self, name)} is too low: {least} is the least")
        if self.size > 4096:
            raise UserError(f"--size {self.size} is too high: 4096 is the most")
        if self.broken + self.odd * len(ODD_KINDS) > self.labelled:
            raise UserError(
                f"--labelled {self.labelled} leaves no room for --odd {self.odd} files of each of "
                f"{len(ODD_KINDS)} kinds and --broken {self.broken}"
            )

    def identity(self) -> dict[str, int]:
        """What the archive's bytes depend on."""
        return {
            **{name: value for name, value in asdict(self).items() if name != "workers"},
            "generator": GENERATOR,
        }


@dataclass(frozen=True)
class SampleSummary:
    """What an archive holds."""

    output: Path
    labelled: int
    unlabelled: int
    tag_counts: Mapping[str, int]  # labelled chips a tag
    odd: Mapping[str, str]  # image name -> how its file is encoded, where unlike the archive's own way
    overlooked: Mapping[str, tuple[str, ...]]  # image name -> tags that it shows and its label lacks
    broken: Mapping[str, str]  # image name -> what is wrong with its file
    reused: bool  # whether it was there already


@dataclass(frozen=True)
class _Job:
    """One file to write."""

    name: str  # of the image, no ending
    folder: str
    key: tuple[int, int, int]  # seed, half, index: all that its randomness hangs on
    shown: tuple[str, ...]  # what the picture shows
    tags: tuple[str, ...]  # what the label says, which may be a little less
    kind: Kind
    fault: Fault | None


def write_archive(output: Path, settings: SampleSettings) -> SampleSummary:
    """Draws the archive of `settings` into the folder `output`, or finds it there.

    Args:
        output: the archive's folder. An archive of other settings in it is replaced.
        settings: which archive.

    Returns:
        What the archive holds.

    Raises:
        UserError: `output` is a file, holds something else, or cannot be written.
    """
    output = Path.cwd() / output
    jobs = _plan(settings)
    if _is_whole(output, settings):
        return _summary(output, jobs, reused=True)
    try:
        _refuse_strangers(output)
        output.parent.mkdir(parents=True, exist_ok=True)
        with draft(output) as folder:
            _fill(folder, jobs, settings)
            put_in_place(folder, output)
    except OSError as error:
        raise UserError(f"--output {output} cannot be written: {error.strerror or error}") from error
    except BrokenProcessPool as error:
        raise UserError(
            f"a drawing process was killed: try fewer than --workers {settings.workers}"
        ) from error
    return _summary(output, jobs, reused=False)


def _plan(settings: SampleSettings) -> list[_Job]:
    """Every file of the archive, in order: tags, names, encodings. Draws no picture."""
    jobs = []
    for half, folder, stem, count in (
        (_LABELLED, TRAIN, "train", settings.labelled),
        (_UNLABELLED, TEST, "test", settings.unlabelled),
    ):
        lots = np.random.default_rng((settings.seed, half, _ODD_PART))
        each = settings.odd if half == _LABELLED else min(-(-settings.odd // 3), count // len(ODD_KINDS))
        odd = [kind for kind in ODD_KINDS for _ in range(each)]
        faults = list(Fault)
        broken = [faults[i % len(faults)] for i in range(settings.broken)] if half == _LABELLED else []
        chosen = [int(index) for index in lots.permutation(count)[: len(odd) + len(broken)]]
        kinds = dict(zip(chosen, odd, strict=False))
        wrongs = dict(zip(chosen[len(odd) :], broken, strict=True))
        for index in range(count):
            key = (settings.seed, half, index)
            rng = np.random.default_rng((*key, _TAGS_PART))
            shown = draw_tags(rng)
            tags = overlook(rng, shown)
            kind = kinds.get(index, Kind.PLANET)
            jobs.append(_Job(f"{stem}_{index}", folder, key, shown, tags, kind, wrongs.get(index)))
    return jobs


def _write(job: _Job, folder: Path, size: int) -> int:
    """Draws one file and writes it; returns its bytes."""
    rgb = draw_chip(job.shown, job.key, size)
    content = spoil(rgb, job.fault) if job.fault else encode(rgb, job.kind)
    return (folder / job.folder / f"{job.name}.jpg").write_bytes(content)


def _fill(folder: Path, jobs: Sequence[_Job], settings: SampleSettings) -> None:
    """Writes every file of the archive into `folder`, the marker last."""
    for name in (TRAIN, TEST):
        (folder / name).mkdir()
    total = 0
    with Meter("drawing the sample archive", len(jobs), "chips") as meter:
        for done, written in enumerate(
            _spread(partial(_write, folder=folder, size=settings.size), jobs, settings.workers), 1
        ):
            total += written
            meter.update(done)
    labelled = [(job.name, " ".join(job.tags)) for job in jobs if job.folder == TRAIN]
    _write_table(folder / LABELS_CSV, labelled)
    unlabelled = [(job.name, " ".join(CONSTANT_TAGS)) for job in jobs if job.folder == TEST]
    _write_table(folder / SUBMISSION_CSV, unlabelled)
    (folder / README).write_text(
        "These pictures were drawn by a program, python -m canopy.sample: no satellite took them.\n"
        f"They come from seed {settings.seed}, and the same seed and counts give the same files again.\n",
        encoding="utf-8",
    )
    marker = {"settings": settings.identity(), "files": len(jobs), "bytes": total}
    (folder / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")


def _spread(work: Callable[[_Job], int], jobs: Sequence[_Job], workers: int) -> Iterator[int]:
    """Does `work` on each job, in as many processes as pay, and hands back the results in order."""
    workers = min(workers, len(jobs) // _ALONE)
    if workers < 2:
        yield from map(work, jobs)
        return
    # A forked child would share the state of whatever threads the caller runs: start fresh ones.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=children.settle)
    try:
        yield from pool.map(work, jobs, chunksize=8)
    finally:
        pool.shutdown(cancel_futures=True)


def _write_table(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    path.write_text(tables.as_csv(("image_name", "tags"), rows), encoding="utf-8", newline="")


def _summary(output: Path, jobs: Sequence[_Job], *, reused: bool) -> SampleSummary:
    labelled = [job for job in jobs if job.folder == TRAIN]
    counts = Counter(tag for job in labelled for tag in job.tags)
    return SampleSummary(
        output=output,
        labelled=len(labelled),
        unlabelled=len(jobs) - len(labelled),
        tag_counts={tag: counts[tag] for tag in TAGS},
        odd={job.name: job.kind.value for job in jobs if job.kind is not Kind.PLANET},
        overlooked={
            job.name: tuple(sorted(set(job.shown) - set(job.tags)))
            for job in labelled
            if job.shown != job.tags
        },
        broken={job.name: job.fault.value for job in jobs if job.fault},
        reused=reused,
    )


def _is_whole(output: Path, settings: SampleSettings) -> bool:
    """Whether `output` holds every file of just this archive, judged by counts and sizes."""
    try:
        marker = json.loads((output / MARKER).read_text(encoding="utf-8"))
        if marker["settings"] != settings.identity():
            return False
        sizes = [entry.stat().st_size for name in (TRAIN, TEST) for entry in os.scandir(output / name)]
        tables = all((output / name).is_file() for name in (LABELS_CSV, SUBMISSION_CSV, README))
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(tables and len(sizes) == marker["files"] and sum(sizes) == marker["bytes"])


def _refuse_strangers(output: Path) -> None:
    """Makes sure that only an archive of our own, or an empty folder, is ever replaced."""
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise UserError(f"--output {output} is not a folder: name a new one")
    if not output.exists():
        return
    held = {path.name for path in output.iterdir()}
    added = held - CONTENTS
    for folder, ours in ((TRAIN, r"train_\d+\.jpg"), (TEST, r"test_\d+\.jpg")):
        if (output / folder).is_dir():
            added |= {path.name for path in (output / folder).iterdir() if not re.fullmatch(ours, path.name)}
    if held and (MARKER not in held or added):
        raise UserError(f"--output {output} holds files that are no sample archive: name a new folder")
