"""Which Beam runner, in which mode, and how a run is followed and its failures told.

Promises: what the user says wins; otherwise the job picks what fits its size and the machine's cores, and
never a runner that downloads something. A worker's `UserError` reaches the user as the one sentence it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beam_jobs import dataflow, elsewhere
from canopy import machine, quiet
from canopy.cli import Parser, TryAgainError, UserError
from canopy.progress import Meter

DIRECT = ("", "DirectRunner", "SwitchingDirectRunner", "FnApiRunner")
# Threads of one process keep 1.4 of two cores busy, for Python's lock; processes keep both, and take half a
# second more to start.
MANY_IMAGES = 3_000
# From a store images come by many threads in each process: Beam's own, which take two seconds to start.
MANY_REMOTE_IMAGES = 12_000
# What a worker raises for people, by the name that Beam wraps.
TOLD = {"UserError": UserError, "TryAgainError": TryAgainError, "UnavailableError": TryAgainError}
POLL_SECONDS = 0.5
WORDS_SHOWN = 3  # of those that nobody knows
REMOTE_THREADS = 8  # each has a few batches read ahead, so that a store's latency hides


@dataclass(frozen=True)
class Choice:
    """How to run."""

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

    parser = Parser("beam", "")
    for kind in PipelineOptions.__subclasses__():
        kind._add_argparse_args(parser)
    known, unknown = parser.parse_known_args(list(arguments))
    runner = elsewhere.spelled(known.runner or "")
    if unknown:
        # Values alone are rather what a shell has made of a glob.
        if not elsewhere.may_know_more(runner) or not unknown[0].startswith("-"):
            raise UserError(_unknown(unknown))
        print(f"unknown flag or value: {' '.join(unknown)}; left to {runner}", file=sys.stderr)
    options = PipelineOptions(list(arguments))
    options.view_as(StandardOptions).runner = runner or None
    # Beam's file systems are asked before there is a pipeline, and S3's refuses to work without options.
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


def choose(
    options: Any,
    arguments: Sequence[str],
    *,
    images: int,
    remote: bool,
    processes_from: float,
) -> Choice:
    """Picks runner, mode, processes and threads.

    Args:
        options: from `parse_options`.
        arguments: what they were made of: says what the user gave, as against defaults.
        images: to convert.
        remote: whether images are read from a store.
        processes_from: images from which processes beside Beam's are worth their start; infinity where one
            process is all that the work can use.

    Raises:
        UserError: for a number of workers below 0, which stands for as many as there are cores.
    """
    from apache_beam.options.pipeline_options import DirectOptions, StandardOptions

    runner = options.view_as(StandardOptions).runner or ""
    least = REMOTE_THREADS if remote else 1
    if runner not in DIRECT:
        return Choice(runner, "", 0, max(least, 2))
    cores = machine.cores()
    direct = options.view_as(DirectOptions)

    def given(flag: str) -> bool:
        return any(argument.split("=")[0] == flag for argument in arguments)

    workers = (direct.direct_num_workers or cores) if given("--direct_num_workers") else cores
    if workers < 0:
        raise UserError(f"--direct_num_workers must not be negative, and is {workers}")
    if given("--direct_running_mode"):
        mode = direct.direct_running_mode
    elif remote and workers > 1 and images >= MANY_REMOTE_IMAGES:
        mode = "multi_processing"
    else:
        mode = "in_memory"
        if workers > 1 and not remote and images >= processes_from:
            return Choice("FnApiRunner", mode, 1, 1, workers)
    if mode == "in_memory":
        return Choice("FnApiRunner", mode, 1, max(least, workers))
    return Choice("FnApiRunner", mode, workers, max(least, 1))


def make_runner(choice: Choice, options: Any) -> Any:
    """The runner to hand to a Beam pipeline; sets the options that it reads."""
    from apache_beam.options.pipeline_options import DirectOptions

    if not choice.mode:
        return None
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    direct = options.view_as(DirectOptions)
    direct.direct_num_workers = choice.workers
    if choice.mode != "multi_processing":
        direct.direct_running_mode = choice.mode
        return FnApiRunner()
    # As Beam's own mode, but for Ctrl-C: a terminal sends it to all, and each worker would print its stack.
    direct.direct_running_mode = "in_memory"
    command = f"trap '' INT; exec {shlex.quote(sys.executable)} -m apache_beam.runners.worker.sdk_worker_main"
    return FnApiRunner(SubprocessSDKEnvironment.from_command_string(command))


def give_back_memory() -> None:
    """Returns freed memory to the system where the C library can, before the pictures take theirs."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def followed(folder: str, total: int, doing: str) -> Iterator[None]:
    """Shows progress while a pipeline runs, from the numbers that workers leave in a local folder.

    Args:
        folder: a file a work list, holding the number of its images done; "": nothing is shown.
        total: images in all.
        doing: what is done to them, a verb.
    """
    stop = threading.Event()
    with Meter(doing, total) as meter:

        def watch() -> None:
            while not stop.wait(POLL_SECONDS):
                meter.update(max(meter.done, _progress(folder)))  # a file may be read while it is written

        thread = threading.Thread(target=watch, daemon=True)
        if folder:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            if folder:
                thread.join()


def _progress(folder: str) -> int:
    done = 0
    try:
        for entry in os.scandir(folder):
            text = Path(entry.path).read_text()
            done += int(text) if text.isdigit() else 0
    except OSError:
        pass
    return done


@contextmanager
def explained() -> Iterator[None]:
    """Lets Ctrl-C and what a worker raised, wrapped by whichever runner, come out as what they are."""
    # Beam logs each failure with its whole traceback, and raises it as well.
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL + 1)  # that a job is refused is "fatal" to it
    try:
        with _workers_first():
            yield
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        if text.startswith("RuntimeError: KeyboardInterrupt"):
            raise KeyboardInterrupt from error
        found = re.findall(rf"({'|'.join(TOLD)}): (.+?)(?: \[while running|\\n|\n|$)", text)
        if found:
            name, said = found[-1]
            raise TOLD[name](said) from error
        if re.search(r"failed(\.| in) state:? CANCELLED", text, re.IGNORECASE):
            raise UserError("the job was cancelled where its runner runs it") from error
        if re.search(r"\bMemoryError\b", text):
            raise MemoryError from error
        if fetched := re.search(r"Unable to fetch remote (?:job server jar|prism binary) at (\S+?):? ", text):
            raise UserError(
                f"Beam could not fetch this runner's job server from {fetched[1]}: name a running one with "
                "--job_endpoint"
            ) from error
        if sentence := dataflow.explained(error):
            raise sentence from error
        raise


@contextmanager
def _workers_first() -> Iterator[None]:
    """Lets a signal that ends this process end its workers before anything is tidied up, and all be quiet.

    They would tell at length that what they worked on is gone, and Beam's threads that the workers are.
    """
    before: dict[int, Any] = {}

    def end(number: int, frame: Any) -> None:
        threading.excepthook = lambda _: None
        _end_children()
        before[number](number, frame)

    if threading.current_thread() is threading.main_thread():
        known = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        before |= {number: handler for number, handler in known.items() if callable(handler)}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_children() -> None:
    # Linux only; elsewhere they notice by themselves.
    for listed in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread or the process has ended by itself
            for pid in map(int, listed.read_text().split()):
                # Python's own keeper of semaphores ends by itself, and is missed where it does not.
                if b"multiprocessing.resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)


def wait(result: Any, counter: str, total: int, doing: str) -> None:
    """Waits for a run on a runner that works elsewhere, showing its metrics where it reports any.

    An interrupt ends the run there, too: nobody would make whole what it goes on to write.
    """
    from apache_beam.metrics.metric import MetricsFilter

    wanted, stop = MetricsFilter().with_name(counter), threading.Event()
    with Meter(doing, total) as meter:

        def look() -> None:
            with contextlib.suppress(Exception):  # a runner may report none, or none yet: no reason to fail
                counters = result.metrics().query(wanted)["counters"]
                meter.update(max(meter.done, sum(entry.attempted or 0 for entry in counters)))

        def watch() -> None:
            while not stop.wait(POLL_SECONDS):
                look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            if dataflow.is_job(result):
                dataflow.wait(result)
            else:
                result.wait_until_finish()  # not by its state: some runners' changes in here alone
        except KeyboardInterrupt:
            with contextlib.suppress(Exception):  # its server may have been interrupted as well
                result.cancel()
            raise
        finally:
            stop.set()
            thread.join()
        look()
