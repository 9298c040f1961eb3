"""Scores an archive of JPEGs with an exported model and writes the submission: the job and its graph.

Promises: `--output` is there whole or not at all; every image found is in it, listed in the rejects beside
it, or counted as not asked for; every row that had to be guessed is listed there too. What passes through
Beam are the paths of lists; the worker that gets one reads, converts and scores its images and leaves their
scores beside the list, in a staging folder beside the output, which is of this run alone.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from beam_jobs import predict_settings, sources, staging, storage, submission, summary, targets
from beam_jobs.listing import list_images
from beam_jobs.predict_settings import Settings
from beam_jobs.runners import choosing, early, running
from beam_jobs.runners.choosing import Choice
from beam_jobs.scoring import apart, engines, worklist
from beam_jobs.scoring.apart import ApartScorer
from beam_jobs.scoring.fed import FedScorer
from beam_jobs.scoring.scorer import Scorer
from beam_jobs.scoring.worklist import Scored, WorkList
from beam_jobs.settings import exceeds
from beam_jobs.work import Progress, Reject, side_by_side
from canopy import children, cli, contract, machine, quiet
from canopy.cli import TryAgainError, UserError
from canopy.model_info import ModelInfo
from canopy.phrases import rate, several

# Engines of one process are loaded one after another, 30 ms each: there have to be images for them. Python's
# lock keeps more threads than some dozens from working at once.
ENGINE_IMAGES, MOST_ENGINES = 16, 32


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m beam_jobs.predict`."""

    def command() -> None:
        job, arguments = predict_settings.parse(argv)
        cli.tell(predict(job, arguments))

    quiet.prepare_beam()
    return cli.run(command)


def predict(job: Settings, arguments: Sequence[str]) -> list[str]:
    """Runs the whole job and returns the summary's lines.

    Raises:
        UserError: see its text; nothing is written then but the list of rejects.
    """
    start = time.monotonic()
    options = None
    places = filter(None, (job.model, *job.images, job.sample_submission, job.output, job.scores))
    if arguments or any(map(storage.is_beams, places)):
        options = choosing.parse_options(arguments)
        choosing.check(options, model=(job.model,), images=job.images, output=(job.output,))
    model = engines.read_info(job.model)
    if job.scores and submission.COLUMNS[0] in model.classes:
        raise UserError(
            f"--scores: the model has a tag {submission.COLUMNS[0]}, as the names' column has: predict "
            "without, or name that tag otherwise and train again"
        )
    sample = submission.read_sample(job.sample_submission) if job.sample_submission else None
    job = targets.resolved(job)
    staged = staging.of_prediction(job.output, os.environ.get(contract.RUN_ID, ""))
    listing = list_images(job.images, own=staged.own)
    found = len(listing)
    unique, rejects = submission.usable_names(listing)
    # Threads wait for Python's lock between pictures, but other processes know nothing of how Beam's file
    # systems were set up in this one.
    alone = any(map(storage.is_beams, (job.model, *job.images, *listing.copies.values())))
    few = math.inf if alone else choosing.processes_from(len(unique), sources.sizes(unique))
    choice = choosing.choose(
        options,
        arguments,
        images=len(unique),
        remote=False,
        processes_from=few,
        pieces=apart.pieces(len(unique), model, job.tta),
        each=apart.PROCESS_BYTES,
    )
    with staging.begun(staged), running.progress_folder() as progress:
        # What is known by the names is told before hours of scoring, which would not change it.
        absent = submission.lacking({source.name for source in unique}, sample) if sample else []
        _check(job, found, rejects, missing=absent, extra=[], rows=len(sample or ()))
        for path in filter(None, (job.output, job.scores)):
            targets.check_writable(path)
        sources.unpack(listing)
        lists = worklist.cut(unique, staged.own, progress, choice.workers, choice.processes)
        lists = side_by_side(WorkList.save, lists)
        total = len(unique)
        del listing, unique  # of millions of images they take gigabytes
        running.give_back_memory()
        graph = partial(
            build,
            lists=lists,
            model=model,
            job=job,
            threads=_threads(choice, total),
            own=staged.own,
            processes=choice.processes,
        )
        try:
            running.run(
                graph,
                choice,
                options,
                total=total,
                doing="scoring",
                folder=progress,
                beside=_early(staged.own, model, job, choice.processes, lists[0].place),
            )
            outcomes = side_by_side(_outcome, lists)
        except (UserError, TryAgainError):
            staged.check()  # another run that has taken the folder is the reason, not what is missing
            raise
        staged.check()
        scored = worklist.joined(outcomes)
        rejects += scored.rejects
        result = submission.assemble(scored.names, scored.scores, model, sample)
        staged.check()
        _check(job, found, rejects, missing=result.missing, extra=result.extra, rows=len(result.rows))
        _write_rejects(job.output, rejects + submission.unseen(result.missing, rejects))
        if job.scores:
            storage.write_bytes(job.scores, submission.as_parquet(scored.names, scored.scores, model.classes))
        storage.write_bytes(job.output, submission.as_csv(result.rows))
        staged.check()  # in a store another run may have written some of the files since
    used = {each.engine for each in outcomes}
    return _summary(job, found, rejects, result, used=used, seconds=time.monotonic() - start)


def _early(
    own: str, model: ModelInfo, job: Settings, count: int, first: str
) -> AbstractContextManager[None] | None:
    """What has processes score the first list before there is a pipeline, where these are to do so."""
    if not count or engines.is_for_all(job.engine):
        return None

    def start() -> ApartScorer:
        work = WorkList.load(first)
        scorer = ApartScorer(model, job.engine, job.tta, job.max_pixels, count)
        scorer.begin(work.sources, Progress(work.progress))
        return scorer

    return early.kept(own, start)


def build(
    pipeline: Any,
    lists: Sequence[WorkList],
    model: ModelInfo,
    job: Settings,
    *,
    threads: int,
    own: str,
    processes: int,
) -> None:
    """The graph: score every list.

    Args:
        pipeline: a Beam pipeline.
        lists: what to score, as saved.
        model: the export.
        job: the settings.
        threads: that score in each worker.
        own: the job's name, by which it has started processes.
        processes: that do so instead, beside each worker.
    """
    import apache_beam as beam
    from apache_beam.metrics import Metrics

    class Score(beam.DoFn):
        """Loads the model once a worker, not once a list; after the first error it does nothing."""

        def setup(self) -> None:
            self._error, self._is_transient = "", False
            self._scorer: Scorer | ApartScorer | FedScorer | None = None
            load = partial(engines.load, model, job.engine)
            try:
                if not processes:
                    self._scorer = Scorer(load(threads), model, job.tta, job.max_pixels)
                elif engines.is_for_all(job.engine):
                    one = partial(load, processes)
                    self._scorer = FedScorer(model, one, job.tta, job.max_pixels, processes)
                else:
                    self._scorer = early.started(own)
            except (UserError, TryAgainError) as error:
                self._note(error)

        def _note(self, error: Exception) -> None:
            self._error, self._is_transient = str(error), isinstance(error, TryAgainError)

        def process(self, packed: bytes) -> None:
            work = WorkList.load(packed.decode("utf-8", "surrogateescape"))
            scored = Scored()
            if self._scorer and not self._error:
                try:
                    progress = Progress(work.progress)
                    scored = self._scorer.score(work.sources, progress)
                    progress.end(len(work.sources))
                except (UserError, TryAgainError) as error:
                    self._note(error)
            scored.error, scored.is_transient = self._error, self._is_transient
            storage.write_bytes(work.path, worklist.pack(scored))
            Metrics.counter("canopy", running.COUNTER).inc(len(work.sources))

        def teardown(self) -> None:
            if self._scorer and not isinstance(self._scorer, ApartScorer):
                self._scorer.close()

    # As bytes: Beam's coder of text takes no path that is not UTF-8.
    packed = [work.place.encode("utf-8", "surrogateescape") for work in lists]
    # Create spreads them over the workers; --type_check_strictness ALL_REQUIRED wants its type named.
    spread = pipeline | "Lists" >> beam.Create(packed).with_output_types(bytes)
    spread | "Score" >> beam.ParDo(Score())


def _threads(choice: Choice, images: int) -> int:
    """How many threads are to score in each worker, each with an engine of its own."""
    if not choice.mode:  # elsewhere each core mostly has a process of its own
        return 2  # for one to read meanwhile
    useful = min(math.ceil(images / (choice.workers * ENGINE_IMAGES)), MOST_ENGINES)
    return children.fitting(min(math.ceil(machine.cores() / choice.workers), useful), engines.LEAST_BYTES)


def _outcome(work: WorkList) -> Scored:
    """What became of a list; raises the error that ended its work."""
    with running.expected(work.path):
        found = worklist.unpack(storage.read_bytes(work.path))
    if found.error:
        raise (TryAgainError if found.is_transient else UserError)(found.error)
    return found


def _write_rejects(output: str, rejects: list[Reject]) -> None:
    """Lists them beside the output; an earlier run's list never stays."""
    path = targets.rejects_path(output)
    storage.delete([path])
    if rejects:
        storage.write_bytes(path, summary.reject_lines(rejects))


def _check(
    job: Settings, found: int, rejects: list[Reject], *, missing: list[str], extra: list[str], rows: int
) -> None:
    """Ends the job where too many are affected, and leaves the list of them."""
    listed = f"; see {targets.rejects_path(job.output)}"
    bad = sorted(map(summary.reject_told, rejects))
    unnamed = "names of the sample have no usable image"
    if missing and len(missing) == rows and "/" in missing[0]:
        unnamed += " (an image's name is without its folder: take the folders out of the sample)"
    reasons = [
        f"{len(some):,} of {total:,} {what}, more than --{flag} {getattr(job, flag):g} allows "
        f"(the first: {some[0]}{'' if some is extra else listed})"
        for some, total, what, flag in (
            (bad, found, "images cannot be used", "max_bad_fraction"),
            (missing, rows, unnamed, "max_missing_fraction"),
            (extra, found, "images are not named in the sample", "max_extra_fraction"),
        )
        if exceeds(len(some), total, getattr(job, flag))
    ]
    if len(bad) == found:
        reasons.append(f"none of {found:,} images can be used (the first: {bad[0]}{listed})")
    if reasons:
        _write_rejects(job.output, rejects + submission.unseen(missing, rejects))
        raise UserError(reasons[0])


def _summary(
    job: Settings,
    found: int,
    rejects: list[Reject],
    result: submission.Submission,
    *,
    used: set[str],
    seconds: float,
) -> list[str]:
    counts = sorted(Counter(reject.reason for reject in rejects).items())
    reasons = f" ({', '.join(f'{count:,} {reason}' for reason, count in counts)})" if counts else ""
    lines = [
        f"images     {found:,} found, {found - len(rejects):,} scored, {len(rejects):,} rejected{reasons}",
        f"rows       {len(result.rows):,}",
    ]
    if result.missing:
        some = ", ".join(result.missing[:5]) + (" …" if len(result.missing) > 5 else "")
        lines.append(
            f"missing    {several(len(result.missing), 'name')} without a usable image got the constant "
            f"tags: {some}"
        )
    if result.extra:
        lines.append(f"left out   {several(len(result.extra), 'image')} that the sample does not name")
    if rejects or result.missing:
        lines.append(f"rejects    {targets.rejects_path(job.output)}")
    lines.append(f"engine     {', '.join(sorted(used))}")
    lines.append(f"time       {seconds:.1f} s, {rate(found, seconds)} images/s")
    written = {"scores": job.scores, "output": job.output}
    return lines + [f"{what:<10} {path}" for what, path in written.items() if path]


if __name__ == "__main__":
    sys.exit(main())
