"""Starts a run's workers and keeps them going: all of them on this machine, or the one of this pod.

Promises: flags are checked before anything is started; on one machine no second launcher trains in the same
folder; a worker that is lost makes the others restart in place and go on from the last checkpoint, a bounded
number of times; the exit code says how it ended, and so does the pod's termination message.

    python -m trainer.launch --local_workers 2 -- --data build/demo/tfrecords --model_dir build/demo/model
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from canopy import cli, locks, own, shared_disk
from canopy.cli import UserError
from canopy.contract import HAS_TRAINED, RUN_ID
from trainer import cluster, config, data_info, flags, logs, weights
from trainer.flags import flag
from trainer.halt import Halt
from trainer.launching import supervise
from trainer.launching.supervise import Crew, Ending
from trainer.network import hub

BACKOFF_SECONDS = (1.0, 30.0)  # pause before the second restart in a row, doubled each time up to the second

log = logging.getLogger("canopy.launch")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The launcher's own settings; each field but the last is the flag of the same name."""

    local_workers: int = flag(
        "workers on this machine; 0: one worker, placed by the Indexed Job's environment", 0
    )
    max_restarts: int = flag("restarts in place without a new checkpoint in between before giving up", 10)
    rendezvous_timeout: float = flag(
        "how long to wait for the other pods at each start", 600.0, metavar="SECONDS"
    )
    task_flags: tuple[str, ...]  # trainer.task's


def main(argv: Sequence[str] | None = None) -> int:
    """Launches, supervises, and returns the run's exit code."""
    return cli.run(lambda: _launch(_parse(argv)))


def _parse(argv: Sequence[str] | None) -> Settings:
    parser = cli.Parser(
        "python -m trainer.launch", "Starts workers of trainer.task; its flags stand behind --."
    )
    flags.add(parser, Settings)
    given, task = flags.before_task(parser, argv)
    settings = Settings(**given, task_flags=task)
    if settings.local_workers < 0 or settings.max_restarts < 0:
        raise UserError("--local_workers and --max_restarts must not be negative")
    if not settings.rendezvous_timeout > 0:
        raise UserError("--rendezvous_timeout must be greater than 0")
    return settings


def _launch(settings: Settings) -> int:
    """Runs the workers, again after each loss, and returns how it ended in the end."""
    task = config.parse(settings.task_flags)
    local = settings.local_workers > 0
    cluster.check_room(settings.local_workers)
    place = cluster.Place(0, ()) if local else cluster.from_indexed_job(os.environ)
    _check(task, settings.local_workers or place.workers)
    logs.of_launcher(task.log_format, place.index, is_pods=not local)
    run = os.environ.get(RUN_ID)  # empty where a pod lacks the label that the manifest takes it from
    if not run:
        if task.restart and not local:
            raise UserError(
                f"--restart in a pod needs {RUN_ID} (the Job's uid) in the environment: without it, a "
                "replaced pod would delete what the running job has reached"
            )
        run = uuid.uuid4().hex
    crew = Crew(settings.local_workers, place, {RUN_ID: run}, task.log_format)
    with _alone(task) if local else contextlib.nullcontext(), Halt() as halt:
        ending = _keep_going(settings, crew, halt)
    failed = ending.code != cli.EXIT_OK
    if failed and not ending.is_told:
        log.error(ending.why)
    cli.leave_word(ending.why if failed else "")
    return ending.code


@contextlib.contextmanager
def _alone(task: config.Config) -> Iterator[None]:
    """Keeps a second launcher of this machine out of the run's folder.

    Two launchers of one run would both write its checkpoints. The lock is not in the folder: on a network's
    disk it might outlast a machine that loses power. Where other users put their temporary files, they could
    take it first.
    """
    folder = task.model_dir if "://" in task.model_dir else str(Path(task.model_dir).resolve())
    digest = hashlib.sha256(folder.encode()).hexdigest()[:16]
    busy = (
        f"--model_dir {task.model_dir}: another run on this machine trains there: let it end, take another "
        "folder, or begin anew with --restart, which ends the other"
    )
    with contextlib.ExitStack() as held:
        try:
            if (place := own.folder()) is not None:
                held.enter_context(locks.holding(str(place / f"run-{digest}"), busy))
        except UserError:
            if not task.restart:
                raise
        except OSError:
            pass  # no room for a file, or no locks: then without one
        yield


def _keep_going(settings: Settings, crew: Crew, halt: Halt) -> Ending:
    """Attempt after attempt, until one ends in a way that a restart does not mend."""
    restarts, newest, pause = 0, -1, 0.0
    first, longest = BACKOFF_SECONDS
    while True:
        ending = supervise.attempt(crew, settings.task_flags, halt, settings.rendezvous_timeout)
        if ending.saved > newest:
            restarts, newest, pause = 0, ending.saved, 0.0
            crew = replace(crew, environment={**crew.environment, HAS_TRAINED: "true"})
        if ending.is_final:
            return ending
        if restarts == settings.max_restarts:
            # One that crashes here at every start is no peer's loss: the cluster has to count it.
            code = 128 + ending.crash if ending.crash else ending.code
            return Ending(code, f"gave up after {restarts} restarts without a new checkpoint: {ending.why}")
        restarts += 1
        when = f" in {pause:.0f} s" if pause else ""
        log.warning("restart %d of %d%s", restarts, settings.max_restarts, when)
        halt.wait(pause)
        if halt.code:
            return Ending(halt.code, "stopped by a signal before a restart")
        pause = min(2 * pause, longest) or first


def _check(task: config.Config, workers: int) -> None:
    """Finds what every worker would only find after seconds, and each for itself."""
    config.check_batch(task.batch_size, workers)
    info = None
    if "://" not in task.data:
        info = data_info.read(task.data)
        info.shards("train"), info.shards("validation")
        info.check_batch(task.batch_size)
    hub.check(task.backbone)
    try:
        if info and task.init_from and "://" not in task.init_from:
            info.check_start(task)
        if task.takes_weights:
            weights.look_once([(task.weights, task.alpha, task.image_size)])
    except UserError:
        if not _may_go_on(task):
            raise


def _may_go_on(task: config.Config) -> bool:
    """Whether there may be a checkpoint, with which a run needs nothing of what it began with."""
    folder = Path(task.model_dir, "checkpoints")
    shared_disk.look_for(folder)
    return "://" in task.model_dir or (folder.is_dir() and any(folder.iterdir()))


if __name__ == "__main__":
    sys.exit(main())
