"""Converts an archive of JPEGs and a CSV of tags to sharded TFRecords: flags and graph.

Promises: the files of `canopy.contract`, whole or without their commit marker; the same bytes on every
runner with any number of workers. What passes through Beam are names, never pixels: one element is the path
of a shard's work list, and the worker that gets it reads, converts and writes that shard.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from beam_jobs import commit, prepare, settings, sources, storage, summary
from beam_jobs.convert import Apart, Change, changes, convert_shard, evened, rebuild
from beam_jobs.runners import choosing, early, running
from beam_jobs.runners.processes import crew
from beam_jobs.work import Reject, Result, Work, side_by_side
from canopy import cli, contract, quiet
from canopy.cli import TryAgainError, UserError


def _even_out(_: None, results: list[Result]) -> list[Change]:
    """Beam's second step, of which there is one for all shards."""
    return changes(results)


def _rebuild(change: Change, _: object = None, *, taking: bool) -> None:
    """Beam's third and fourth step: shards that lack records take some, then the givers drop theirs."""
    if bool(change.takes) == taking:
        rebuild(change.result, change.keep, change.takes).save()


def build(pipeline: Any, lists: Sequence[str], threads: int, own: str, processes: int) -> None:
    """The graph: convert every shard, then even out what rejects left uneven.

    Args:
        pipeline: a Beam pipeline.
        lists: paths of work lists.
        threads: that read and decode in each worker, or in each of its processes.
        own: the job's name, by which it has begun to convert.
        processes: that do so in its stead, beside the one worker.
    """
    import apache_beam as beam
    from apache_beam.metrics import Metrics
    from apache_beam.transforms.window import GlobalWindows

    class Convert(beam.DoFn):
        """A work list's path to what became of its shard; threads start once a worker."""

        def setup(self) -> None:
            self._crew = crew(threads, processes=0)
            self._count = Metrics.counter("canopy", running.COUNTER).inc
            self._waiting: list[str] = []  # for the processes, which take shards side by side

        def process(self, packed: bytes) -> Iterator[Result]:
            path = packed.decode("utf-8", "surrogateescape")
            if processes:
                self._waiting.append(path)
            else:
                yield convert_shard(Work.load(path), self._crew, self._count)

        def finish_bundle(self) -> Iterator[Any]:
            paths, self._waiting = sorted(self._waiting), []
            for path in paths:
                result = early.started(own).outcome(path)
                self._count(result.converted + len(result.rejects))
                yield GlobalWindows.windowed_value(result)

        def teardown(self) -> None:
            self._crew.close()

    # As bytes: Beam's coder of text takes no path that is not UTF-8.
    packed = [path.encode("utf-8", "surrogateescape") for path in lists]
    # Types are named where Beam cannot tell them, for users who set --type_check_strictness ALL_REQUIRED.
    converted = (
        pipeline
        | "Lists" >> beam.Create(packed).with_output_types(bytes)  # it spreads them over the workers
        | "Convert" >> beam.ParDo(Convert())
    )
    uneven = (
        pipeline
        | "Once" >> beam.Create([None]).with_output_types(None)
        | "Even out" >> beam.FlatMap(_even_out, beam.pvalue.AsList(converted))
        | "Spread changes" >> beam.Reshuffle().with_output_types(Change)
    )
    taken = uneven | "Take" >> beam.Map(_rebuild, taking=True)
    # The side input makes givers wait until every taker has its records.
    uneven | "Give" >> beam.Map(_rebuild, beam.pvalue.AsList(taken), taking=False)


def preprocess(job: settings.Settings, arguments: Sequence[str]) -> dict[str, Any]:
    """Runs the whole job.

    Args:
        job: the settings.
        arguments: for Beam.

    Returns:
        The content of canopy.json.

    Raises:
        UserError: see its text.
    """
    start = time.monotonic()
    places = (*job.images, job.labels, job.output)
    options = None
    if arguments or any(map(storage.is_beams, places)):  # else later, when the plan's memory is given back
        options = choosing.parse_options(arguments)
        choosing.check(options, images=job.images, output=(job.output,))
    run_id = os.environ.get(contract.RUN_ID, "")
    if (done := commit.done_by(job.output, run_id)) is not None:
        _check_whole(done, job.output)
        said = f"{job.output} is whole already: this very run has written it"
        print(cli.printable(said), file=sys.stderr)
        return done
    output = commit.Output(job.output, run_id)
    with output.tidied():
        return _fill(output, job, arguments, options, run_id=run_id, start=start)


def _check_whole(document: Mapping[str, Any], folder: str) -> None:
    """Refuses a canopy.json that holds the run's id but not all that the summary tells."""
    try:
        summary.lines(document, folder)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        path = storage.join(folder, contract.CANOPY_JSON)
        raise UserError(f"--output: {path} is damaged: {error!r}") from error


def _fill(
    output: commit.Output,
    job: settings.Settings,
    arguments: Sequence[str],
    options: Any,
    *,
    run_id: str,
    start: float,
) -> dict[str, Any]:
    output.look(job.overwrite)
    prepared = prepare.prepare(job, output.own)
    output.begin(job.overwrite)
    _check_rejects(prepared.rejects, prepared.found, job, output, prepared.unlike)
    sources.unpack(prepared.listing)
    prepared = prepare.sharded(prepared, job)
    output.claim(prepare.shard_names(prepared, job))
    with running.progress_folder() as progress:
        lists, kept = _write_lists(prepared, job, output, progress)
        total = sum(map(len, prepared.order.values()))
        remote = any(map(storage.is_remote, job.images))
        few: float = choosing.processes_from(total, sources.sizes(prepared.listing), remote)
        if storage.is_beams(job.output) and not remote:
            few = math.inf  # processes beside Beam's know nothing of how this one set its file systems up
        prepared = prepared.without_images()
        running.give_back_memory()
        planned = time.monotonic() - start
        choice = choosing.choose(
            options,
            arguments,
            images=total,
            remote=remote,
            processes_from=few,
            pieces=len(lists),
            each=choosing.PLAIN_BYTES,
        )
        try:
            count, threads = choice.processes, choice.threads
            running.run(
                partial(build, lists=lists, threads=threads, own=output.own, processes=count),
                choice,
                options,
                total=total,
                doing="converting",
                folder=progress,
                beside=early.kept(output.own, partial(Apart, lists, count, threads)) if count else None,
            )
            results = _results(kept)
        except (UserError, TryAgainError):
            output.check()  # another job that has taken the folder is the reason, not what is missing
            raise
    output.check()
    rejects = prepared.rejects + [reject for result in results for reject in result.rejects]
    _check_rejects(rejects, prepared.found, job, output)
    run = summary.Run(run_id, time.monotonic() - start, planned, choice)
    document = summary.canopy_json(prepared, job, results, rejects, run)
    marker = summary.as_json(summary.dataset_info_json(document))
    output.commit([result.shard for result in results], summary.files(document, rejects), marker)
    return document


def _results(paths: Sequence[str]) -> list[Result]:
    """What became of all shards.

    Raises:
        TryAgainError: the runner ended before all were converted and evened out, or a shard is no longer what
            was written.
    """
    results = side_by_side(_result, paths)
    if not evened(results):
        raise TryAgainError(running.ENDED_EARLY)
    return results


def _result(path: str) -> Result:
    """What became of a shard, which has to be there as it was written."""
    with running.expected(path):
        result = Result.load(path)
    with running.expected(result.path), storage.explained(result.path, "read"):
        size = storage.size(result.path)
    if size != result.bytes:
        raise TryAgainError(
            f"{result.path} has {size:,} bytes and was written with {result.bytes:,}: a worker that its "
            "runner had given up may have come back; run it again"
        )
    return result


def _write_lists(
    prepared: prepare.Prepared, job: settings.Settings, output: commit.Output, progress: str
) -> tuple[list[str], list[str]]:
    """Writes the work lists; returns where they are, and where their results are going to be.

    Nothing of them is kept: one shard's names lie all over the memory that the listing takes, and none of it
    could be given back.
    """
    lists, results = [], []
    for work in prepare.work_lists(prepared, job, output, progress):
        lists.append(output.list_path(work.shard))
        work.save(lists[-1])
        results.append(work.result)
    return lists, results


def _check_rejects(
    rejects: list[Reject], found: int, job: settings.Settings, output: commit.Output, why: str = ""
) -> None:
    """Ends the job where too many images are of no use, leaving the list of them."""
    too_many = settings.exceeds(len(rejects), found, job.max_bad_fraction)
    if too_many or len(rejects) == found:
        where = output.write_rejects(summary.reject_lines(rejects))
        first = sorted(rejects, key=lambda reject: (reject.name, reject.reason))[0]
        said = f"none of {found:,} images can be used"
        if too_many:
            said = (
                f"{len(rejects):,} of {found:,} images cannot be used, "
                f"more than --max_bad_fraction {job.max_bad_fraction:g} allows"
            )
        raise UserError(f"{said}; each is in {where} (the first: {summary.reject_told(first)}){why}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m beam_jobs.preprocess`."""

    def command() -> None:
        job, arguments = settings.parse(argv)
        document = preprocess(job, arguments)
        cli.tell(summary.lines(document, job.output))

    quiet.prepare_beam()
    return cli.run(command)


if __name__ == "__main__":
    sys.exit(main())
