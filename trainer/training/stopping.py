"""How a training process stops: by a signal, because a peer is lost, or because its launcher is gone.

Promises: while steps are taken, SIGTERM and Ctrl-C only raise a flag on which all workers agree, so that all
stop after the same step and its checkpoint; at any other time, where agreement does not come within the grace
period, and at a Ctrl-C behind another signal, the process ends by itself, without a library's traceback;
nothing is cut off while a checkpoint is written.

TensorFlow takes SIGTERM for itself when its cluster starts ("SIGTERM caught") and does nothing with it, and
where an interrupt unwinds its calls or its import, their tracebacks are what the user gets to see. So both
signals are blocked in every thread before TensorFlow is imported, and one thread waits for them: a blocked
signal never reaches a handler. And the main thread may be inside TensorFlow for as long as a lost peer keeps
it waiting, so whatever has to happen at once happens on another thread, by `os._exit`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from canopy import cli
from trainer import link
from trainer.cluster import Place, from_tf_config
from trainer.halt import CODES

AGREE_SECONDS = 15.0  # from the signal until all have stopped together: half of Kubernetes' grace period
SAVING_SECONDS = 10.0  # a checkpoint being written gets as long, then it is given up
# Taken over from `begin` on. A launcher starts its workers with these blocked.
SIGNALS = frozenset(CODES)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class TerminatedError(Exception):
    """A signal came here: this worker has stopped and need not be started again."""

    def __init__(self, by: signal.Signals) -> None:
        """Takes SIGTERM or SIGINT."""
        super().__init__(f"stopped by {by.name}")
        self.code = CODES[by]


class Stopping:
    """What may end this process, and when it may."""

    def __init__(self, near: link.Near) -> None:
        """Begins nothing yet.

        Args:
            near: the line to the launcher.
        """
        self._near = near
        self._lock = threading.RLock()  # held while nothing may be cut off
        self._in_steps = False
        self._cluster = ""  # TF_CONFIG, once the launcher has said go
        self._go = threading.Event()
        self.signal: signal.Signals | None = None  # the first that came to this worker
        self.has_stepped = False  # the workers have computed together

    def begin(self) -> None:
        """Takes the signals over and listens to the launcher. Call on the main thread, before TensorFlow."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        threading.Thread(target=self._await_signal, daemon=True).start()
        if self._near.has_launcher and sys.platform == "linux":
            # Also where this process is frozen and hears nothing. The launcher's main thread started it.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        self._near.start(
            self._heard, lambda: self._end(cli.EXIT_PEER_LOST, "peer lost: the launcher is gone")
        )

    def meet(self) -> Place:
        """Says that this process only waits for the others, waits, and returns its place in their cluster."""
        if not self._near.has_launcher:
            return from_tf_config(os.environ)
        self._near.say(link.READY)
        self._go.wait()
        if self._cluster:
            os.environ["TF_CONFIG"] = self._cluster
        else:
            os.environ.pop("TF_CONFIG", None)  # of a single worker: TensorFlow takes none, and no empty one
        return from_tf_config(os.environ)

    @property
    def is_asked(self) -> bool:
        """Whether this worker was told to stop."""
        return self.signal is not None

    @contextlib.contextmanager
    def agreeing(self) -> Iterator[Callable[[], None]]:
        """While steps are taken that belong to no checkpoint yet: a signal is left to the agreement.

        Yields:
            What to call after each step: from the first call on there is something to lose. Before it, the
            process may be cut off, which a first step's seconds of tracing make worth while.

        Raises:
            TerminatedError: at the end, where a signal came and no agreement was needed any more.
        """
        try:
            yield self._begin_agreement
        finally:
            with self._lock:
                self._in_steps = False
        if self.signal:
            raise TerminatedError(self.signal)

    def _begin_agreement(self) -> None:
        with self._lock:  # whoever ends the process has it for good: no step is begun that nobody saves
            self._in_steps = True

    @contextlib.contextmanager
    def unbroken(self) -> Iterator[None]:
        """While a checkpoint is written."""
        with self._lock:
            yield

    @contextlib.contextmanager
    def patience(self, seconds: float) -> Iterator[None]:
        """While this process may seem frozen to its launcher, at most for `seconds`."""
        self._near.say(link.PATIENCE, seconds)
        yield
        self._near.say(link.PATIENCE, 0)

    def stepped(self, step: int) -> None:
        """Tells the launcher that `step` is complete."""
        self.has_stepped = True
        self._near.say(link.STEP, step)

    def saved(self, step: int) -> None:
        """Tells the launcher that the run would go on from `step`."""
        self._near.say(link.SAVED, step)

    def done(self) -> None:
        """Tells the launcher that this process needs its peers no more."""
        self._near.say(link.DONE)

    def _heard(self, kind: str, value: str) -> None:
        if kind == link.GO:
            self._cluster = value
            self._go.set()
        elif kind == link.LOST:
            self._end(cli.EXIT_PEER_LOST, f"peer lost: {value}")

    def _await_signal(self) -> None:
        self.signal = signal.Signals(signal.sigwait(SIGNALS))
        if self._in_steps:  # without the lock: a checkpoint being written may never end
            # macOS has no wait for a signal with a deadline.
            hurry = threading.Thread(target=signal.sigwait, args=({signal.SIGINT},), daemon=True)
            hurry.start()
            hurry.join(AGREE_SECONDS)
        # A launcher tells of Ctrl-C, once for all its workers.
        is_told = self._near.has_launcher and self.signal == signal.SIGINT
        line = f"stopped by {self.signal.name}: the newest checkpoint stands"
        self._end(CODES[self.signal], "" if is_told else line)

    def _end(self, code: int, line: str) -> None:
        """Ends the process from whatever thread, when no checkpoint is being written any more."""
        self._lock.acquire(timeout=SAVING_SECONDS)
        leave(code, line)


def leave(code: int, line: str = "") -> None:
    """Ends the process at once: TensorFlow's own end may wait for a cluster that is no more."""
    if line:
        cli.leave_word(line)
        with contextlib.suppress(OSError):
            os.write(2, f"{line}\n".encode())
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            stream.flush()
    os._exit(code)
