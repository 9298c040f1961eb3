"""Scores an archive of JPEGs with an exported model and writes the submission: flags and graph.

Promises: `--output` is there whole or not at all; every image found is in it, listed as a reject, or
counted as not asked for. What passes through Beam are lists of names; the worker that gets one reads,
converts and scores its images and leaves their scores in a staging folder beside the output.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beam_jobs import runners, scoring, settings, sources, storage, submission, summary
from beam_jobs.images import DEFAULT_MAX_PIXELS, DUPLICATE_NAME
from beam_jobs.scoring import ModelInfo, Scored, WorkList
from beam_jobs.sources import Listing, Source
from beam_jobs.work import Reject
from canopy import cli, machine
from canopy.cli import UserError

LIST_IMAGES = 256  # images a work list: seconds of work, so that runners can share them out
COUNTER = "images"  # the metric of images done


@dataclass(frozen=True)
class Settings:
    """What the flags say."""

    model: str  # the export
    images: tuple[str, ...]  # folders, globs, archives
    output: str  # the CSV to write
    sample_submission: str | None  # order and completeness
    scores: str | None  # Parquet file for all scores
    tta: int  # views averaged: 1 or 8
    max_pixels: int  # above which an image is rejected by its header
    max_bad_fraction: float  # of rejected images among the found
    max_missing_fraction: float  # of the sample's names without a usable image
    max_extra_fraction: float  # of images that the sample does not name


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m beam_jobs.predict`."""

    def command() -> None:
        job, arguments = parse(argv)
        print("\n".join(predict(job, arguments)))

    cli.quiet_libraries()
    return cli.run(command)


def parse(argv: Sequence[str] | None) -> tuple[Settings, list[str]]:
    """Reads the flags; what is left is for Beam."""
    parser = settings.Parser(
        "python -m beam_jobs.predict",
        "Writes a submission for an archive of JPEGs. Every option of Apache Beam may be given as well.",
    )
    add = parser.add_argument
    add("--model", required=True, metavar="FOLDER", help="the trainer's export, local or gs://")
    add(
        "--images",
        action="append",
        required=True,
        metavar="PATH",
        help="folder, glob, .zip or uncompressed .tar, local or gs://; may be given more than once",
    )
    add("--output", required=True, metavar="FILE", help="the CSV to write, local or gs://")
    add("--sample_submission", metavar="FILE", help="CSV whose names, in their order, the rows shall have")
    add("--scores", metavar="FILE", help="Parquet file to write with all scores")
    add(
        "--tta",
        type=int,
        choices=scoring.TTA_VIEWS,
        default=1,
        help="8: average over all flips and quarter turns",
    )
    add(
        "--max_pixels",
        type=settings.whole_number(1),
        default=DEFAULT_MAX_PIXELS,
        help="width times height above which an image is rejected by its header",
    )
    add(
        "--max_bad_fraction",
        type=settings.fraction,
        default=0.01,
        help="of images that cannot be used, above which the job fails",
    )
    add(
        "--max_missing_fraction",
        type=settings.fraction,
        default=0.01,
        help="of the sample's names without a usable image, above which the job fails",
    )
    add(
        "--max_extra_fraction",
        type=settings.fraction,
        default=1.0,
        help="of images that the sample does not name, above which the job fails",
    )
    flags, rest = parser.parse_known_args(argv)
    return Settings(**{**vars(flags), "images": tuple(flags.images)}), rest


def predict(job: Settings, arguments: Sequence[str]) -> list[str]:
    """Runs the whole job and returns the summary's lines.

    Raises:
        UserError: see its text; nothing is written then but the list of rejects.
    """
    start = time.monotonic()
    options = runners.parse_options(arguments)
    model = scoring.read_model_info(job.model)
    sample = submission.read_sample(job.sample_submission) if job.sample_submission else None
    listing = sources.list_images(job.images)
    unique, rejects = _first_of_each_name(listing)
    storage.make_folder(storage.split(job.output)[0])
    staging = f"{job.output}.partial"
    _clear(staging)
    storage.make_folder(storage.join(staging, "progress"))
    lists = _work_lists(unique, staging)
    remote = any(map(storage.is_remote, job.images))
    choice = runners.choose(options, arguments, len(unique), remote)
    try:
        _run(options, choice, lists, model, job)
        scored: dict[str, NDArray[np.float32]] = {}
        for work in lists:
            rejects += _collect(work.path, scored)
        _write_rejects(job.output, rejects)
        _check("of the images cannot be used", len(rejects), len(listing), "max_bad_fraction", job)
        result = submission.assemble(scored, model, sample)
        _check(
            "names of the sample have no usable image",
            len(result.missing),
            len(result.rows),
            "max_missing_fraction",
            job,
        )
        if sample is not None:
            _check(
                "of the images are not in the sample",
                len(result.extra),
                len(listing),
                "max_extra_fraction",
                job,
            )
        if job.scores:
            storage.write_bytes(job.scores, _parquet(scored, model))
        storage.write_bytes(job.output, submission.as_csv(result.rows))
    finally:
        _clear(staging)
    seconds = time.monotonic() - start
    return _summary(job, len(listing), rejects, result, seconds)


def build(pipeline: Any, lists: Sequence[WorkList], model: ModelInfo, job: Settings, threads: int) -> None:
    """The graph: score every list.

    Args:
        pipeline: a Beam pipeline.
        lists: what to score.
        model: the export.
        job: the settings.
        threads: that read and decode in each worker.
    """
    import apache_beam as beam
    from apache_beam.metrics import Metrics

    class Score(beam.DoFn):
        """Loads the model once a worker, not once a list."""

        def setup(self) -> None:
            self._scorer = scoring.Scorer(model, job.tta)

        def process(self, work: WorkList) -> None:
            scored = scoring.score_all(work.sources, self._scorer.scores, job.max_pixels, threads)
            storage.write_bytes(work.path, _pack(scored))
            if work.progress:
                Path(work.progress).write_text(str(len(work.sources)))
            Metrics.counter("canopy", COUNTER).inc(len(work.sources))

    pipeline | "Lists" >> beam.Create(lists) | "Spread" >> beam.Reshuffle() | "Score" >> beam.ParDo(Score())


def _run(
    options: Any, choice: runners.Choice, lists: list[WorkList], model: ModelInfo, job: Settings
) -> None:
    import apache_beam as beam

    with runners.explained():
        pipeline = beam.Pipeline(runner=runners.make_runner(choice, options), options=options)
        build(pipeline, lists, model, job, max(2, choice.threads, machine.cores() if choice.mode else 0))
        if choice.mode:
            folder = storage.split(lists[0].progress)[0] if lists else ""
            with runners.followed(folder, sum(len(work.sources) for work in lists)):
                pipeline.run().wait_until_finish()
        else:
            runners.wait(pipeline.run(), COUNTER, sum(len(work.sources) for work in lists))


def _first_of_each_name(listing: Listing) -> tuple[list[Source], list[Reject]]:
    """The images to score, and those whose name came before."""
    kept: dict[str, Source] = {}
    rejects = []
    for source in sorted(listing, key=lambda source: source.path):
        if source.name in kept:
            rejects.append(Reject(source.name, DUPLICATE_NAME, f"{kept[source.name].path} comes first"))
        else:
            kept[source.name] = source
    return list(kept.values()), rejects


def _work_lists(found: list[Source], staging: str) -> list[WorkList]:
    local = not storage.is_remote(staging)
    return [
        WorkList(
            tuple(found[begin : begin + LIST_IMAGES]),
            storage.join(staging, f"scores-{number:05d}.npz"),
            storage.join(staging, "progress", str(number)) if local else "",
        )
        for number, begin in enumerate(range(0, len(found), LIST_IMAGES))
    ]


def _pack(scored: Scored) -> bytes:
    """A list's outcome as one file: what a worker can only write whole."""
    out = io.BytesIO()
    rejects = json.dumps([asdict(reject) for reject in scored.rejects])
    np.savez(
        out,
        names=np.array(json.dumps(scored.names)),
        scores=np.array(scored.scores, np.float32),
        rejects=np.array(rejects),
    )
    return out.getvalue()


def _collect(path: str, scored: dict[str, NDArray[np.float32]]) -> list[Reject]:
    """Adds a list's scores to `scored` and returns its rejects."""
    with np.load(io.BytesIO(storage.read_bytes(path)), allow_pickle=False) as found:
        scored.update(zip(json.loads(str(found["names"])), found["scores"], strict=True))
        return [Reject(**reject) for reject in json.loads(str(found["rejects"]))]


def _parquet(scored: dict[str, NDArray[np.float32]], model: ModelInfo) -> bytes:
    """image_name and one float32 column a class, sorted by name."""
    import pandas as pd

    names = sorted(scored)
    table = pd.DataFrame(np.array([scored[name] for name in names]), columns=list(model.classes))
    table.insert(0, submission.COLUMNS[0], names)
    out = io.BytesIO()
    table.to_parquet(out, index=False)
    return out.getvalue()


def _write_rejects(output: str, rejects: list[Reject]) -> None:
    """Lists them beside the output; an earlier run's list never stays."""
    path = f"{output}.rejects.jsonl"
    storage.delete([path])
    if rejects:
        storage.write_bytes(path, summary.reject_lines(rejects))


def _check(what: str, count: int, total: int, flag: str, job: Settings) -> None:
    """Ends the job where too many are affected."""
    allowed = getattr(job, flag)
    if count > allowed * total:
        raise UserError(f"{count:,} of {total:,} {what}, more than --{flag} {allowed:g} allows")


def _clear(staging: str) -> None:
    """Removes the staging folder, an interrupted run's too."""
    if not storage.is_remote(staging):
        shutil.rmtree(staging, ignore_errors=True)
        return
    storage.delete([storage.join(staging, name) for name in storage.list_files(staging)])


def _summary(
    job: Settings, found: int, rejects: list[Reject], result: submission.Submission, seconds: float
) -> list[str]:
    lines = [f"images     {found:,} found, {found - len(rejects):,} scored, {len(rejects):,} rejected"]
    lines.append(f"rows       {len(result.rows):,}")
    if result.missing:
        some = ", ".join(result.missing[:5]) + (" …" if len(result.missing) > 5 else "")
        lines.append(
            f"missing    {len(result.missing):,} names without a usable image got the constant tags: {some}"
        )
    if result.extra:
        lines.append(f"left out   {len(result.extra):,} images that the sample does not name")
    lines.append(f"time       {seconds:.1f} s, {found / seconds:,.0f} images/s")
    lines.append(f"output     {job.output}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
