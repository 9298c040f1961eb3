"""Which Beam runner, and in which mode.

Promises: what the user says wins; otherwise the job picks what fits its size and the machine's cores and
memory, and never a runner that downloads something. An option that nobody knows is refused, not passed over.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any

from beam_jobs.runners import elsewhere
from canopy import children, machine, quiet
from canopy.cli import Parser, UserError

DIRECT = ("", "DirectRunner", "SwitchingDirectRunner", "FnApiRunner")
PROCESSES = "multi_processing"  # the mode with worker processes of Beam's own
# Threads of one process keep 1.4 of two cores busy, for Python's lock; processes keep both, and take half a
# second more to start.
MANY_IMAGES = 3_000
MANY_BYTES = 50_000_000  # of files: what as many chips of 256 px take; larger pictures are fewer
# From a store images come by many threads in each process: Beam's own, which take two seconds to start.
MANY_REMOTE_IMAGES = 12_000
WORDS_SHOWN = 3  # of those that nobody knows
# Of a process at least, besides what all share: Beam's own came to 143 MiB, a plain one that converts to 24.
BEAMS_BYTES, PLAIN_BYTES = 128 << 20, 20 << 20
BEAMS_FILES, PLAIN_FILES = 5, 2  # that this process has open for each: its pipes, and sockets
REMOTE_THREADS = 8  # each has a few batches read ahead, so that a store's latency hides


@dataclass(frozen=True)
class Choice:
    """How to run; canopy.json has these names under `run`."""

    runner: str  # Beam's name
    mode: str  # in_memory, multi_threading, multi_processing, or "" for another runner
    workers: int  # processes; 0: the runner knows
    threads: int  # that read and decode in each
    processes: int = 0  # plain ones that do so beside a worker, in its threads' place


def parse_options(arguments: Sequence[str]) -> Any:
    """Reads Beam's own options.

    Raises:
        UserError: nobody knows one of them, or it has a wrong value. What Beam does not know here, but a
            runner may, is only told.
    """
    with quiet.uncollected():
        from apache_beam.io.filesystems import FileSystems
        from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

    def parsed(*kinds: Any) -> Any:
        parser = Parser("beam", "")
        for kind in kinds:
            kind._add_argparse_args(parser)
        return parser.parse_known_args(list(arguments))

    runner = elsewhere.spelled(parsed(StandardOptions)[0].runner or "")
    elsewhere.bring_options(runner)
    _, unknown = parsed(*PipelineOptions.__subclasses__())
    if unknown:
        # Values alone are rather what a shell has made of a glob.
        if not elsewhere.may_know_more(runner) or not unknown[0].startswith("-"):
            raise UserError(_unknown(unknown))
        print(f"unknown flag or value: {' '.join(unknown)}; left to {runner}", file=sys.stderr)
    options = PipelineOptions(list(arguments))
    options.view_as(StandardOptions).runner = runner or None
    # Beam's file systems are asked before there is a pipeline, and that of HDFS refuses to without options.
    FileSystems.set_options(options)
    return options


def _unknown(words: Sequence[str]) -> str:
    """The sentence about words that nobody knows: of a pattern without quotes the shell makes thousands."""
    some = " ".join(words[:WORDS_SHOWN])
    more = f" and {len(words) - WORDS_SHOWN:,} more" if len(words) > WORDS_SHOWN else ""
    hint = "" if words[0].startswith("-") else "; --images takes one path each time, a pattern in quotes"
    return f"unknown flag or value: {some}{more} (see --help{hint})"


def check(options: Any, **places: Sequence[str]) -> None:
    """Refuses options that Beam refuses, and what cannot come to anything elsewhere; see `elsewhere.check`.

    Args:
        options: from `parse_options`.
        places: by the flag's name, the paths that its workers open.
    """
    from apache_beam.options.pipeline_options import StandardOptions

    if (options.view_as(StandardOptions).runner or "") in DIRECT:
        elsewhere.check_options(options)
    else:
        elsewhere.check(options, **places)


def processes_from(images: int, sizes: Iterable[int], remote: bool = False) -> int:
    """From how many images on several processes are worth their start.

    Args:
        images: how many there are.
        sizes: of their files, bytes; asked for no longer than it takes to know: not at all of many.
        remote: whether they are read from a store, which takes processes of Beam's.

    Returns:
        `MANY_IMAGES` or `MANY_REMOTE_IMAGES`; 0 where fewer come to as much work, since they are large.
    """
    many = MANY_REMOTE_IMAGES if remote else MANY_IMAGES
    much = MANY_BYTES * many // MANY_IMAGES
    sums = accumulate(islice(sizes, many if images < many else 0))
    return 0 if any(total >= much for total in sums) else many


def choose(
    options: Any,
    arguments: Sequence[str],
    *,
    images: int,
    remote: bool,
    processes_from: float,
    pieces: int,
    each: int,
) -> Choice:
    """Picks runner, mode, processes and threads.

    Args:
        options: from `parse_options`; None: not read yet, for there are no arguments.
        arguments: what they were made of: says what the user gave, as against defaults.
        images: to convert.
        remote: whether images are read from a store.
        processes_from: images from which several processes are worth their start; infinity where one
            process is all that the work can use.
        pieces: that the work consists of for such processes: more of them would have nothing to do.
        each: bytes that such a process takes at least, besides what all share.

    Raises:
        UserError: for a number of workers below 0 (which stands for as many as the machine has room for), or
            for more processes than its memory holds or open files allow.
    """
    runner = ""
    direct: Any = None
    if options is not None:
        from apache_beam.options.pipeline_options import DirectOptions, StandardOptions

        runner = options.view_as(StandardOptions).runner or ""
        direct = options.view_as(DirectOptions)
    least = REMOTE_THREADS if remote else 1
    if runner not in DIRECT:
        return Choice(runner, "", 0, max(least, 2))

    def given(flag: str) -> bool:
        return direct is not None and any(argument.split("=")[0] == flag for argument in arguments)

    asked = direct.direct_num_workers if given("--direct_num_workers") else 0
    if asked < 0:
        raise UserError(f"--direct_num_workers must not be negative, and is {asked}")
    workers = asked or machine.cores()

    def fitting(size: int, files: int) -> int:
        if asked:
            children.check_memory("--direct_num_workers", asked, size)
            children.check_files("--direct_num_workers", asked, files)
        return asked or children.fitting(workers, size, files)

    mode = "in_memory"
    if given("--direct_running_mode"):
        mode = direct.direct_running_mode
    elif workers > 1 and images >= processes_from:
        if remote:
            mode = PROCESSES
        elif (processes := min(room := fitting(each, PLAIN_FILES), pieces)) > 1:
            return Choice("FnApiRunner", mode, 1, math.ceil(room / processes), processes)
    if mode == "in_memory":
        return Choice("FnApiRunner", mode, 1, max(least, workers))
    if mode == PROCESSES:
        workers = fitting(BEAMS_BYTES, BEAMS_FILES)
    return Choice("FnApiRunner", mode, workers, least)
