"""One training process, as its launcher sees it.

Promises: it gets its cluster when all are ready, its cores and its line to the launcher; the reason it leaves
when it ends can be read; and it can be ended, frozen or not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from canopy import children, machine
from trainer import link, logs
from trainer.cluster import Place
from trainer.training import stopping

START_SECONDS = 180.0  # of silence until it is ready: loading TensorFlow from a cold disk holds Python up
FROZEN_SECONDS = 30.0  # of silence later on
# Between two looks at it: the launcher itself was paused (Ctrl-Z), or the machine, perhaps with the worker.
PAUSED_SECONDS = 3.0
# Of silence once a peer is lost: what it computes is lost anyway, and half a checkpoint does no harm.
STALLED_SECONDS = 5.0
RELAY_SECONDS = 5.0  # for the rest of what it wrote: a child that outlives it may keep its stderr open
POLL_SECONDS = 0.02


class Worker:
    """One training process.

    The chief writes to the user's stderr. Errors of the others on this machine are held back: each worker
    finds a user's mistake for itself, and the user wants to read it once.
    """

    def __init__(
        self,
        place: Place,
        flags: Sequence[str],
        here: int,
        environment: Mapping[str, str] | None = None,
        *,
        log_format: str = "text",
    ) -> None:
        """Starts it.

        Args:
            place: its place in the cluster; the addresses may still change until `go`.
            flags: trainer.task's.
            here: how many workers share this machine.
            environment: variables that it finds besides those of this process.
            log_format: `--log_format`; with json, what libraries write becomes JSON, too.
        """
        self.index = place.index
        self.line = link.Far()
        self._looked_at = self._ran_at = time.monotonic()  # at it; and when it was last not stopped
        self._held: list[bytes] = []
        self._word = tempfile.TemporaryFile()  # noqa: SIM115 (of no name: a killed launcher leaves none)
        whole = {
            **_shares(here),
            **os.environ,
            **_own_gpus(place.index, here),
            **(environment or {}),
            "TF_CONFIG": place.tf_config(),
            "CANOPY_TERMINATION_LOG": f"/dev/fd/{self._word.fileno()}",
            link.ENVIRONMENT: str(self.line.descriptor),
        }
        self._kills = machine.kills_for_memory()
        self._holds_errors, self._as_json = here > 1 and not place.is_chief, log_format == "json"
        self._is_hushed = False
        relayed = self._holds_errors or self._as_json
        # It inherits what is blocked: a signal that comes while it still imports waits until it can answer.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "trainer.task", *flags],
                env=whole,
                stderr=subprocess.PIPE if relayed else None,
                pass_fds=[self.line.descriptor, self._word.fileno()],
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.line.start()
        self._relay = threading.Thread(target=self._pass_on, daemon=True)
        self._relay.start()

    def seems_frozen(self) -> bool:
        """Whether it runs and has given no sign of life for too long; to be asked again and again."""
        if self.process.poll() is not None:
            return False
        limit = FROZEN_SECONDS if self.line.is_ready else START_SECONDS
        silence, is_stopped = self.line.silent_for(), _is_stopped(self.process.pid)
        now = time.monotonic()
        pause, self._looked_at = now - self._looked_at, now
        if pause > PAUSED_SECONDS:
            self.line.forgive(pause)
            self._ran_at = now
            return False
        if not is_stopped:
            self._ran_at = now
        # However busy it said that it would be: nothing is done while it is stopped.
        return silence > limit or now - self._ran_at > FROZEN_SECONDS

    def go(self, place: Place) -> None:
        """Lets it begin, in this cluster."""
        self.line.say(link.GO, place.tf_config())

    def word(self) -> str:
        """The reason that it left for its end, empty where it left none."""
        self._word.seek(0)
        return self._word.read().decode(errors="replace")

    def was_starved(self) -> bool:
        """Whether the kernel killed it for want of memory."""
        return children.was_starved(self.process.poll(), self._kills)

    def how_it_ended(self) -> str:
        """How it ended, in few words."""
        return children.told(self.process.wait(), self._kills)

    def hush(self) -> None:
        """Passes on nothing more that it writes but errors: the run has ended, and the user knows why."""
        self._is_hushed = True

    def _pass_on(self) -> None:
        for line in self.process.stderr or ():
            if not line.startswith(b"error: "):
                _write(b"" if self._is_hushed else self._formed(line))
            elif self._holds_errors:
                self._held.append(line)
            else:
                _write(line)

    def _formed(self, line: bytes) -> bytes:
        text = line.decode("utf-8", "replace").strip()
        if not self._as_json:
            return line
        return f"{logs.as_json(text, self.index)}\n".encode() if text else b""

    def close(self, show_errors: bool) -> None:
        """Lets go of it, now that it has ended.

        Args:
            show_errors: whether nobody else has said why the run ends.
        """
        self._relay.join(RELAY_SECONDS)
        if show_errors:
            _write(b"".join(self._held))
        self.line.close()
        self._word.close()


def _write(line: bytes) -> None:
    # Where nobody reads this stderr, the worker's is still read: else the worker would wait for ever.
    with contextlib.suppress(OSError):
        sys.stderr.buffer.write(line)
        sys.stderr.flush()


def _is_stopped(pid: int) -> bool:
    """Whether a signal or a debugger has stopped a process, as far as the system tells (Linux does)."""
    with contextlib.suppress(OSError):
        # proc_pid_stat(5): the state follows the name, which may hold anything but stands in brackets.
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] in "Tt"
    return False


def _shares(here: int) -> dict[str, str]:
    """What keeps a training process from taking the whole machine, unless the user sets it otherwise."""
    # TensorFlow starts a thread for every core of the node, whatever the container's CPU limit: several
    # workers would take turns.
    threads = str(max(1, machine.cores() // here))
    return {"TF_NUM_INTRAOP_THREADS": threads, "OMP_NUM_THREADS": threads}


def _own_gpus(index: int, here: int) -> dict[str, str]:
    """One worker's part of this machine's GPUs, as many as any other's.

    Left to themselves, all workers take all GPUs, and every GPU computes for every worker.
    """
    named = os.environ.get(machine.VISIBLE_GPUS)
    gpus = [str(i) for i in range(machine.gpus())] if named is None else named.split(",")
    if here == 1 or len(gpus) < 2:
        return {}
    each = max(1, len(gpus) // here)
    first = index * each % len(gpus)
    return {machine.VISIBLE_GPUS: ",".join(gpus[first : first + each])}


def stop(workers: Sequence[Worker], seconds: float) -> None:
    """Sends SIGTERM to all that still run, and kills them after `seconds`, a frozen one at once."""
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.terminate()
    _await_ends(workers, seconds, Worker.seems_frozen)


def dismiss(workers: Sequence[Worker], why: str, seconds: float) -> None:
    """Tells all that still run that a peer is lost, and kills them after `seconds`, a silent one sooner."""
    for worker in workers:
        worker.line.say(link.LOST, why)
    _await_ends(workers, seconds, lambda worker: worker.line.silent_for() > STALLED_SECONDS)


def _await_ends(workers: Sequence[Worker], seconds: float, is_stuck: Callable[[Worker], bool]) -> None:
    """Waits until all have ended, and kills those that are stuck or still run after `seconds`."""
    deadline = time.monotonic() + seconds
    while running := [worker for worker in workers if worker.process.poll() is None]:
        for worker in running:
            if time.monotonic() >= deadline or is_stuck(worker):
                worker.process.kill()
                worker.process.wait()
        time.sleep(POLL_SECONDS)
