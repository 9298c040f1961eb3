"""Starts a run's workers and keeps them going: all of them on this machine, or the one of this pod.

Promises: flags are checked before anything is started; a worker that is lost makes the others restart in
place and go on from the last checkpoint, a bounded number of times; the exit code says how it ended.

    python -m trainer.launch --local_workers 2 -- --data build/demo/tfrecords --model_dir build/demo/model
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from canopy import cli, machine
from canopy.cli import UserError
from trainer import cluster, config, data_info, weights
from trainer.cluster import Place

POLL_SECONDS = 0.2
LAST_WORDS_SECONDS = 5.0  # others that failed for the same reason may still say so
STOP_SECONDS = 20.0  # between SIGTERM and SIGKILL, within Kubernetes' grace period of 30 s
BACKOFF_SECONDS = (1.0, 30.0)  # first pause before a restart, doubled each time up to the second


@dataclass(frozen=True)
class Settings:
    """The launcher's own settings."""

    local_workers: int  # workers to start on this machine; 0: this is a pod of an Indexed Job
    max_restarts: int  # restarts in place before giving up
    task_flags: tuple[str, ...]  # trainer.task's


class _StoppedError(Exception):
    """SIGTERM came."""


def main(argv: Sequence[str] | None = None) -> int:
    """Launches, supervises, and returns the run's exit code."""
    try:
        return cli.run(lambda: _exit_with(_supervise(_parse(argv))))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else cli.EXIT_BUG


def _exit_with(code: int) -> None:
    if code:
        raise SystemExit(code)


def _parse(argv: Sequence[str] | None) -> Settings:
    given = list(sys.argv[1:] if argv is None else argv)
    own, task = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    parser = cli.Parser(
        "python -m trainer.launch", "Starts workers of trainer.task; its flags stand behind --."
    )
    parser.add_argument(
        "--local_workers",
        type=int,
        default=0,
        metavar="N",
        help="workers on this machine; 0: one worker, placed by the Indexed Job's environment",
    )
    parser.add_argument(
        "--max_restarts", type=int, default=10, metavar="N", help="restarts in place before giving up"
    )
    flags = parser.parse_args(own)
    if flags.local_workers < 0 or flags.max_restarts < 0:
        raise UserError("--local_workers and --max_restarts must not be negative")
    return Settings(flags.local_workers, flags.max_restarts, tuple(task))


def _supervise(settings: Settings) -> int:
    """Starts the workers, again after each loss, and returns the exit code of the last attempt."""
    task = config.parse(settings.task_flags)
    local = settings.local_workers > 0
    places = (
        cluster.on_this_machine(settings.local_workers) if local else [cluster.from_indexed_job(os.environ)]
    )
    _check(task, places[0].workers)
    flags = list(settings.task_flags)
    pause, longest = BACKOFF_SECONDS
    with _Terminable():
        for attempt in range(settings.max_restarts + 1):
            if attempt:
                print(
                    f"launch: restart {attempt} of {settings.max_restarts} in {pause:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
                time.sleep(pause)
                pause = min(2 * pause, longest)
                places = cluster.on_this_machine(settings.local_workers) if local else places
                # Beginning anew is for the first attempt: a restart goes on from the checkpoint.
                flags = [flag for flag in flags if flag != "--restart"]
            code = _attempt(places, flags)
            if code in (cli.EXIT_OK, cli.EXIT_USER, cli.EXIT_BUG, cli.EXIT_INTERRUPTED, cli.EXIT_TERMINATED):
                return code
    print(f"launch: gave up after {settings.max_restarts} restarts", file=sys.stderr, flush=True)
    return cli.EXIT_PEER_LOST


def _check(task: config.Config, workers: int) -> None:
    """Finds what every worker would only find after seconds, and each for itself."""
    config.check_batch(task.batch_size, workers)
    if "://" not in task.data:
        info = data_info.read(task.data)
        info.shards("train"), info.shards("validation")
    if task.backbone == "keras":
        weights.resolve(task.weights, task.alpha, task.image_size)


def _attempt(places: list[Place], flags: list[str]) -> int:
    """Runs one worker process for each place until all are done, or one failed and the rest are stopped."""
    workers = [_Worker(place, flags, len(places)) for place in places]
    try:
        _wait(workers)
    except _StoppedError:
        _stop(workers, signal.SIGTERM)
        return cli.EXIT_TERMINATED
    except KeyboardInterrupt:
        _stop(workers, signal.SIGINT)
        return cli.EXIT_INTERRUPTED
    finally:
        # Those that have not ended by themselves do not count as failed: they were waiting for the others.
        codes = [worker.process.poll() or 0 for worker in workers]
        _stop(workers, signal.SIGKILL)
        for worker in workers:
            worker.tell_errors(unless_said=codes[0] == cli.EXIT_USER)
    for worker, code in zip(workers, codes, strict=True):
        if code not in (cli.EXIT_OK, cli.EXIT_USER):
            print(f"launch: worker {worker.index} ended with {_describe(code)}", file=sys.stderr, flush=True)
    return _verdict([code for code in codes if code])


class _Worker:
    """One training process. The chief's stderr is the user's; of the others, errors are held back.

    Each worker finds a user's mistake for itself, and the user wants to read it once.
    """

    def __init__(self, place: Place, flags: list[str], here: int) -> None:
        """Starts it.

        Args:
            place: its place in the cluster.
            flags: trainer.task's.
            here: how many workers share this machine.
        """
        environment = dict(os.environ, TF_CONFIG=place.tf_config())
        if here > 1:
            # Each worker would start a thread for every core, and they would take turns at them.
            threads = str(max(1, machine.cores() // here))
            environment |= {"TF_NUM_INTRAOP_THREADS": threads, "OMP_NUM_THREADS": threads}
        self.index = place.index
        self._held: list[bytes] = []
        relayed = here > 1 and not place.is_chief
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trainer.task", *flags],
            env=environment,
            stderr=subprocess.PIPE if relayed else None,
        )
        self._relay = threading.Thread(target=self._pass_on, daemon=True)
        if relayed:
            self._relay.start()

    def _pass_on(self) -> None:
        for line in self.process.stderr or ():
            if line.startswith(b"error: "):
                self._held.append(line)
            else:
                sys.stderr.buffer.write(line)
                sys.stderr.flush()

    def tell_errors(self, unless_said: bool) -> None:
        """Shows the errors held back, now that the process has ended.

        Args:
            unless_said: whether the chief has said why the run ends.
        """
        if self._relay.ident is not None:
            self._relay.join()
        if not unless_said:
            sys.stderr.buffer.write(b"".join(self._held))
            sys.stderr.flush()


def _wait(workers: list[_Worker]) -> None:
    """Waits until all ended well, or one did not: then the rest get a moment for their last words."""
    deadline = float("inf")
    while time.monotonic() < deadline:
        codes = [worker.process.poll() for worker in workers]
        if all(code is not None for code in codes):
            return
        if any(codes) and deadline == float("inf"):
            deadline = time.monotonic() + LAST_WORDS_SECONDS
        time.sleep(POLL_SECONDS)


def _stop(workers: list[_Worker], how: signal.Signals) -> None:
    """Ends what still runs, by force where asking does not help."""
    running = [worker.process for worker in workers if worker.process.poll() is None]
    for process in running:
        process.send_signal(how)
    deadline = time.monotonic() + STOP_SECONDS
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _verdict(failures: list[int]) -> int:
    """One exit code for all workers: what a restart cannot mend comes first.

    Where one was killed, the others may fail in any way: that is no bug of theirs.
    """
    if not failures:
        return cli.EXIT_OK
    killed = any(code < 0 for code in failures)
    final = [cli.EXIT_USER, cli.EXIT_INTERRUPTED] + ([] if killed else [cli.EXIT_BUG])
    for code in final:
        if code in failures:
            return code
    return cli.EXIT_PEER_LOST


def _describe(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


class _Terminable:
    """Turns SIGTERM into `_StoppedError` while workers run, so that none outlives the launcher."""

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGTERM, self._raise)

    @staticmethod
    def _raise(number: int, frame: FrameType | None) -> None:
        raise _StoppedError

    def __exit__(self, *_: Any) -> None:
        signal.signal(signal.SIGTERM, self._before)


if __name__ == "__main__":
    sys.exit(main())
