"""One attempt: from starting this launcher's training processes to the last one's end.

Promises: no process of an attempt is left when it returns; the ending says what a restart can mend; a signal
to the launcher reaches the processes, and they get the time to save.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from canopy import cli
from trainer import cluster
from trainer.cluster import Place
from trainer.halt import CODES, Halt
from trainer.launching import worker
from trainer.launching.rendezvous import End, Meeting, Start
from trainer.launching.watch import Watch
from trainer.launching.worker import Worker

log = logging.getLogger("canopy.launch")

POLL_SECONDS = 0.1
LAST_WORDS_SECONDS = 5.0  # others that failed for the same reason may still say so
STOP_SECONDS = 25.0  # between SIGTERM and SIGKILL, within Kubernetes' grace period of 30 s
DISMISS_SECONDS = 12.0  # for a checkpoint that is being written when a peer is lost
TELL_SECONDS = 10.0  # for telling the other launchers of an end that no restart mends
WORTH_TELLING = (cli.EXIT_USER, cli.EXIT_BUG)
# Signals by which a process ends itself: a driver, a device or a library is broken.
CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE})


@dataclass(frozen=True)
class Crew:
    """The workers that one launcher is responsible for."""

    local_workers: int  # all of the run's, on this machine; 0: one, at `place`
    place: Place  # of a pod's; each attempt finds places on this machine
    environment: Mapping[str, str] = field(default_factory=dict)  # theirs, besides this process's own
    log_format: str = "text"  # theirs, too

    def places(self) -> list[Place]:
        """The workers' places; on this machine, at ports that are free now."""
        return cluster.on_this_machine(self.local_workers) if self.local_workers else [self.place]

    @property
    def has_others(self) -> bool:
        """Whether other launchers' workers take part."""
        return not self.local_workers and self.place.workers > 1


@dataclass(frozen=True)
class Ending:
    """How an attempt ended."""

    code: int  # one of canopy.cli's, or 128 and the signal's number where it gave up on a crash
    why: str  # one line
    saved: int = -1  # step of the newest checkpoint that this attempt wrote
    is_final: bool = True  # a restart would not mend it
    crash: int = 0  # the signal by which a worker of this launcher crashed, or was killed for want of memory
    is_told: bool = False  # a worker of this launcher has said it to the user


def attempt(crew: Crew, flags: Sequence[str], halt: Halt, rendezvous_timeout: float) -> Ending:
    """Runs this launcher's workers until all are done, or one failed and the rest are stopped.

    Args:
        crew: whose workers to run.
        flags: trainer.task's.
        halt: what may ask this launcher to end.
        rendezvous_timeout: seconds to wait for the other launchers.
    """
    places = crew.places()
    workers = [
        Worker(place, flags, len(places), crew.environment, log_format=crew.log_format) for place in places
    ]
    try:
        if crew.has_others:
            ending = _with_others(workers[0], places[0], halt, rendezvous_timeout)
        else:
            ending = _on_this_machine(crew, workers, halt)
    finally:
        worker.dismiss(workers, "the launcher ends", 0.0)
        codes = [each.process.poll() for each in workers]
        for each in workers:
            each.close(show_errors=codes[0] != cli.EXIT_USER)
        _be_ready(False)
    is_told = ending.code == cli.EXIT_USER and cli.EXIT_USER in codes
    return replace(ending, saved=max(each.line.saved for each in workers), is_told=is_told)


def _on_this_machine(crew: Crew, workers: list[Worker], halt: Halt) -> Ending:
    ending = _wait(workers, halt, until=lambda: all(each.line.is_ready for each in workers))
    if ending is None:
        # At other ports: the first may have been taken while TensorFlow was loaded.
        for each, place in zip(workers, crew.places(), strict=True):
            each.go(place)
        ending = _wait(workers, halt)
    assert ending is not None
    return ending


def _with_others(own: Worker, place: Place, halt: Halt, rendezvous_timeout: float) -> Ending:
    with Meeting(place) as meeting:
        found = _meet(own, meeting, halt, rendezvous_timeout)
        if isinstance(found, Ending):
            if found.code in WORTH_TELLING:
                worker.dismiss([own], found.why, 0.0)
                meeting.tell_all(End(found.code, found.why), TELL_SECONDS)
            return found
    own.go(replace(place, addresses=found.addresses))
    with Watch(place, found) as watch:
        ending = _wait([own], halt, watch=watch)
        assert ending is not None
        if ending.code == cli.EXIT_BUG or ending.crash in CRASHES:
            # TensorFlow has many names for a peer that is gone: the watch knows.
            deadline = time.monotonic() + LAST_WORDS_SECONDS
            while not watch.lost() and time.monotonic() < deadline and not halt.code:
                time.sleep(POLL_SECONDS)
            if watch.lost():
                ending = Ending(cli.EXIT_PEER_LOST, f"peer lost: {watch.lost()}", is_final=False)
    if ending.code in WORTH_TELLING:
        with Meeting(place) as meeting:
            meeting.tell_all(End(ending.code, ending.why), TELL_SECONDS)
    return ending


def _meet(own: Worker, meeting: Meeting, halt: Halt, rendezvous_timeout: float) -> Start | Ending:
    """Waits until this launcher's worker is ready and all others' are."""
    deadline = time.monotonic() + rendezvous_timeout

    def is_over() -> bool:
        if own.line.is_ready:
            meeting.ready()
        return meeting.poll() is not None or time.monotonic() > deadline

    ending = _wait([own], halt, until=is_over)
    if ending is not None:
        return ending
    result = meeting.poll()
    if result is None:
        missing = f"not all came within {rendezvous_timeout:.0f} s: {meeting.missing()}"
        return Ending(cli.EXIT_PEER_LOST, f"peer lost: {missing}")
    return Ending(result.code, result.why) if isinstance(result, End) else result


def _wait(
    workers: list[Worker],
    halt: Halt,
    until: Callable[[], bool] = lambda: False,
    watch: Watch | None = None,
) -> Ending | None:
    """Waits until all ended or one failed; None where `until` was true before that."""
    deadline = float("inf")
    was_ready = False
    while True:
        codes = [each.process.poll() for each in workers]
        if halt.code:
            return _obey(workers, halt.code)
        if all(code is not None for code in codes) or time.monotonic() >= deadline:
            return _conclude(workers)
        if any(codes):
            if cli.EXIT_USER in codes:
                # What the others say now is that this one is gone.
                for each, code in zip(workers, codes, strict=True):
                    if code is None:
                        each.hush()
            # One that was killed has no reason in common with the others, which may still say so.
            is_shared = any(code in WORTH_TELLING for code in codes)
            deadline = min(deadline, time.monotonic() + (LAST_WORDS_SECONDS if is_shared else 0.0))
        elif until():
            return None
        elif gone := _gone(workers, watch):
            log.warning(gone)
            worker.dismiss(workers, gone, DISMISS_SECONDS)
            return Ending(cli.EXIT_PEER_LOST, f"peer lost: {gone}", is_final=False)
        elif not was_ready and any(each.line.steps for each in workers):
            was_ready = True
            _be_ready(True)
        time.sleep(POLL_SECONDS)


def _gone(workers: list[Worker], watch: Watch | None) -> str:
    """Who is lost, and how it showed; empty while all are there."""
    for each in workers:
        if each.seems_frozen():
            return f"worker {each.index} is frozen: it gives no sign of life"
    if watch is None:
        return ""
    if workers[0].line.is_done:
        watch.stop()
    return watch.lost()


def _conclude(workers: list[Worker]) -> Ending:
    """What it means that all ended, or one failed: the rest is ended, too."""
    # Those that still run have not failed: they wait for the others.
    ended = {each: each.process.poll() or 0 for each in workers}
    failed = [each for each, code in ended.items() if code]
    if not failed:
        return Ending(cli.EXIT_OK, "done")
    worker.dismiss(workers, f"worker {failed[0].index} ended", DISMISS_SECONDS)
    code = verdict([ended[each] for each in failed])
    for each in failed if code != cli.EXIT_USER else ():
        log.warning("worker %d ended with %s", each.index, each.how_it_ended())
    exact = [each for each in failed if ended[each] == code]
    killed = [each for each in failed if ended[each] < 0]  # the others may have ended because it is gone
    blamed = (exact if code != cli.EXIT_PEER_LOST else killed or exact or failed)[0]
    found = f"worker {blamed.index} ended with {blamed.how_it_ended()}"
    advice = "give it more, or a smaller --batch_size" if blamed.was_starved() else "see its log"
    return Ending(
        code,
        blamed.word() or f"{found}: {advice}",
        is_final=code != cli.EXIT_PEER_LOST,
        crash=next((-ended[each] for each in failed if -ended[each] in CRASHES or each.was_starved()), 0),
    )


def _obey(workers: list[Worker], code: int) -> Ending:
    """Ends this launcher's workers, because it was told to."""
    name = next(number.name for number, meant in CODES.items() if meant == code)
    if code == cli.EXIT_INTERRUPTED and any(each.line.steps for each in workers):
        log.warning("interrupted: training stops once this step is saved; Ctrl-C again ends it at once")
    # A terminal has sent Ctrl-C to the workers as well, and a second one ends them at once.
    worker.stop(workers, STOP_SECONDS)
    saved = max(each.line.saved for each in workers)
    stands = (
        f"the newest checkpoint is of step {saved}"
        if saved >= 0
        else "no checkpoint was written since the start"
    )
    return Ending(code, f"stopped by {name}: {stands}")


def verdict(failures: Sequence[int]) -> int:
    """One exit code for all workers: what a restart cannot mend comes first.

    Where one was killed or stopped, the others may fail in any way: that is no bug of theirs.

    Args:
        failures: the exit codes other than 0 of the workers that ended by themselves; negative: by a signal.
    """
    killed = any(code < 0 or code == cli.EXIT_TERMINATED for code in failures)
    final = [cli.EXIT_USER, cli.EXIT_INTERRUPTED, cli.EXIT_PIPE] + ([] if killed else [cli.EXIT_BUG])
    return next((code for code in final if code in failures), cli.EXIT_PEER_LOST)


def _be_ready(yes: bool) -> None:
    """Tells Kubernetes' readiness probe, by a file, whether steps are taken."""
    path = os.environ.get("CANOPY_READY_FILE")
    if path:
        with contextlib.suppress(OSError):
            Path(path).touch() if yes else Path(path).unlink(missing_ok=True)
