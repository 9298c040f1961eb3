"""A pipeline's run: followed to its end, its failures told.

Promises: progress is shown wherever the runner lets it be known; a worker's `UserError` reaches the user as
the one sentence that it is; an interrupt ends the workers too, here and elsewhere; a runner that says that it
is done is not believed.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from beam_jobs import storage
from beam_jobs.runners import choosing, dataflow, elsewhere, sockets, workers
from beam_jobs.runners.choosing import PROCESSES, Choice
from canopy.cli import TryAgainError, UserError, first_line, to_stderr
from canopy.phrases import several
from canopy.progress import Meter

COUNTER = "images"  # the metric of images done
# What a worker raises for people, by the name that Beam wraps.
TOLD = {"UserError": UserError, "TryAgainError": TryAgainError, "UnavailableError": TryAgainError}
POLL_SECONDS = 0.5
# As Dask's does where its scheduler is lost: Beam takes what was never computed for done.
ENDED_EARLY = "the runner ended the job before all of it was done, and did not say why: run it again"


def run(
    build: Callable[[Any], None],
    choice: Choice,
    options: Any,
    *,
    total: int,
    doing: str,
    folder: str,
    beside: AbstractContextManager[object] | None = None,
) -> None:
    """Runs a pipeline to its end.

    Args:
        build: adds the transforms to a pipeline.
        choice: the runner.
        options: Beam's, from `choosing.parse_options`; None: there are none, and Beam is not imported yet.
        beside: what goes on from before Beam is imported, which takes a second, until the pipeline has ended.
        total: images in all.
        doing: what is done to them, a verb.
        folder: of this machine: a file a work list, holding the number of its images done.

    Raises:
        UserError: a worker raised one or died, or the runner elsewhere gave up the job.
        TryAgainError: a worker raised one, or the runner elsewhere does not answer.
    """
    with explained(), beside or contextlib.nullcontext():
        options = options or choosing.parse_options([])
        import apache_beam as beam

        pipeline = beam.Pipeline(
            runner=_direct_runner(choice, options) if choice.mode else None, options=options
        )
        build(pipeline)
        if not choice.mode:
            with sockets.private() if elsewhere.is_here(options) else contextlib.nullcontext():
                wait(_started(pipeline, choice.runner), total, doing)
        else:
            workers.hush()
            watching = workers.watched() if choice.mode == PROCESSES else contextlib.nullcontext()
            with followed(partial(noted, folder), total, doing), sockets.private(), watching:
                pipeline.run().wait_until_finish()


def _started(pipeline: Any, runner: str) -> Any:
    """The run, begun elsewhere."""
    try:
        return pipeline.run()
    except OSError as error:  # its machines' address, mostly: no worker has begun
        raise UserError(f"--runner {runner}: {first_line(error)}") from error


def _direct_runner(choice: Choice, options: Any) -> Any:
    """The runner for this machine; sets the options that it reads."""
    from apache_beam.options.pipeline_options import DirectOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    direct = options.view_as(DirectOptions)
    direct.direct_num_workers = choice.workers
    if choice.mode != PROCESSES:
        direct.direct_running_mode = choice.mode
        return FnApiRunner()
    # As Beam's own mode, but for how its processes end.
    direct.direct_running_mode = "in_memory"
    return FnApiRunner(SubprocessSDKEnvironment.from_command_string(workers.command()))


@contextmanager
def progress_folder() -> Iterator[str]:
    """A folder of this machine for the numbers of images done, there for as long as the block lasts."""
    try:
        folder = tempfile.mkdtemp(prefix="canopy-")
    except OSError as error:
        raise UserError(
            f"cannot make a temporary folder: {error.strerror or error}; TMPDIR names where to make it"
        ) from error
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            # By another name, so that no thread of a run that ended early puts a file there meanwhile.
            shutil.rmtree(Path(folder).rename(f"{folder}{storage.PART}"))


@contextmanager
def followed(count: Callable[[], int | None], total: int, doing: str) -> Iterator[None]:
    """Shows progress while the block runs.

    Args:
        count: the number of images done, as far as is known; None: it is not.
        total: images in all.
        doing: what is done to them, a verb.
    """
    stop = threading.Event()
    with Meter(doing, total) as meter:

        def look() -> None:
            done = count()
            if done is not None:
                meter.update(max(meter.done, done))  # a file may be read while it is written

        def watch() -> None:
            while not stop.wait(POLL_SECONDS):
                look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        look()


def noted(folder: str) -> int:
    """The images done, from the numbers that workers leave in a folder."""
    done = 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            text = Path(entry.path).read_text()
            done += int(text) if text.isdigit() else 0
    return done


def _counted(result: Any) -> int | None:
    """The images done, by a runner's metrics; None where it reports none, or none yet."""
    from apache_beam.metrics.metric import MetricsFilter

    with contextlib.suppress(Exception):  # no reason to fail
        if getattr(result, "_metrics", None):
            result._metrics = None  # a job server's first answer, which Beam would give again for ever
        counters = result.metrics().query(MetricsFilter().with_name(COUNTER))["counters"]
        # A runner tells one of the two, or both.
        return sum(entry.attempted or entry.committed or 0 for entry in counters)
    return None


def wait(result: Any, total: int, doing: str) -> None:
    """Waits for a run on a runner that works elsewhere, showing its metrics where it reports any.

    An interrupt ends the run there, too: nobody would make whole what it goes on to write.
    """
    with contextlib.suppress(Exception):
        try:
            result.metrics()
        except NotImplementedError:
            to_stderr(f"{doing} {several(total, 'image')}; this runner tells no progress")
    with followed(partial(_counted, result), total, doing):
        try:
            if dataflow.is_job(result):
                dataflow.wait(result)
            else:
                result.wait_until_finish()  # not by its state: some runners' changes in here alone
        except KeyboardInterrupt:
            with contextlib.suppress(Exception):  # its server may have been interrupted as well
                result.cancel()
            raise


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
        if re.search(r"MemoryError\b", text):
            raise MemoryError from error
        if fetched := re.search(r"Unable to fetch remote (?:job server jar|prism binary) at (\S+?):? ", text):
            raise UserError(
                f"Beam could not fetch this runner's job server from {fetched[1]}: name a running one with "
                "--job_endpoint"
            ) from error
        if sentence := dataflow.explained(error) or elsewhere.explained(error):
            raise sentence from error
        raise


@contextmanager
def expected(path: str) -> Iterator[None]:
    """Reads what a worker has to have left.

    Raises:
        TryAgainError: it is not there, so that the run cannot have come to its end.
    """
    try:
        yield
    except UserError as error:
        if storage.exists(path):
            raise
        raise TryAgainError(ENDED_EARLY) from error


@contextmanager
def _workers_first() -> Iterator[None]:
    """Lets a signal that ends this process end its workers before anything is tidied up, and all be quiet.

    They would tell at length that what they worked on is gone, and Beam's threads that the workers are.
    """
    before: dict[int, Any] = {}

    def end(number: int, frame: Any) -> None:
        threading.excepthook = lambda _: None
        workers.end_all()
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


def give_back_memory() -> None:
    """Returns freed memory to the system where the C library can, before the pictures take theirs."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)
