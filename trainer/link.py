"""The line between a launcher and its training process: a socket pair, one message a line.

Promises: the launcher learns that the process lives, waits, steps and saves; the process learns who its peers
are and that one is lost; and a training process does not outlive its launcher.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable

ENVIRONMENT = "CANOPY_LAUNCHER_FD"  # of the training process: the file descriptor of its end
BEAT_SECONDS = 1.0

# From the training process.
BEAT, READY, STEP, SAVED, PATIENCE, DONE = "beat", "ready", "step", "saved", "patience", "done"
# From the launcher.
GO, LOST = "go", "lost"

Heard = Callable[[str, str], None]  # called with a message's kind and its value


class Near:
    """The training process' end; without a launcher it does nothing."""

    def __init__(self, descriptor: int | None) -> None:
        """Takes the descriptor that the launcher left in the environment.

        Args:
            descriptor: of the socket; None where the process was started by hand.
        """
        self._socket = None if descriptor is None else socket.socket(fileno=descriptor)
        self._saying = threading.Lock()

    @property
    def has_launcher(self) -> bool:
        """Whether anybody listens."""
        return self._socket is not None

    def start(self, heard: Heard, ended: Callable[[], None]) -> None:
        """Begins to beat and to listen, on threads of their own.

        Args:
            heard: called with each message.
            ended: called when the launcher is gone.
        """
        if self._socket is not None:
            threading.Thread(target=self._beat, daemon=True).start()
            threading.Thread(target=self._listen, args=(heard, ended), daemon=True).start()

    def say(self, kind: str, value: object = "") -> None:
        """Tells the launcher; a launcher that is gone is noticed by the listener."""
        if self._socket is not None:
            with contextlib.suppress(OSError), self._saying:
                self._socket.sendall(f"{kind} {value}\n".encode())

    def _beat(self) -> None:
        while True:
            self.say(BEAT)
            time.sleep(BEAT_SECONDS)

    def _listen(self, heard: Heard, ended: Callable[[], None]) -> None:
        assert self._socket is not None
        with contextlib.suppress(OSError), self._socket.makefile("r", encoding="utf-8") as lines:
            for line in lines:
                kind, _, value = line.rstrip("\n").partition(" ")
                heard(kind, value)
        ended()


class Far:
    """The launcher's end: what the training process has said so far."""

    def __init__(self) -> None:
        self._socket, self._theirs = socket.socketpair()
        self.is_ready = self.is_done = False
        self.steps = 0  # completed since the process started
        self.saved = -1  # the newest checkpoint's step
        self._heard_at = time.monotonic()
        self._patience = 0.0

    @property
    def descriptor(self) -> int:
        """Of the training process' end, to be passed to it."""
        return self._theirs.fileno()

    def start(self) -> None:
        """Listens; call when the process has been started."""
        self._theirs.close()
        self._heard_at = time.monotonic()
        threading.Thread(target=self._listen, daemon=True).start()

    def silent_for(self) -> float:
        """Seconds for which the process has been silent beyond what it asked for."""
        return time.monotonic() - self._heard_at - self._patience

    def forgive(self, seconds: float) -> None:
        """Takes seconds in which nobody here listened for none of silence."""
        self._heard_at = min(self._heard_at + seconds, time.monotonic())

    def say(self, kind: str, value: str = "") -> None:
        """Tells the process; one that has ended need not hear it."""
        with contextlib.suppress(OSError):
            self._socket.sendall(f"{kind} {value}\n".encode())

    def close(self) -> None:
        """Ends the line."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError, ValueError), self._socket.makefile("r") as lines:
            for line in lines:
                kind, _, value = line.rstrip("\n").partition(" ")
                self._heard_at = time.monotonic()
                if kind == READY:
                    self.is_ready = True
                elif kind == STEP:
                    self.steps = int(value)
                elif kind == SAVED:
                    self.saved = int(value)
                elif kind == PATIENCE:
                    self._patience = float(value)
                elif kind == DONE:
                    self.is_done = True


def from_environment() -> Near:
    """This process' end of the line; the variable is taken away, so that no child takes it for its own."""
    descriptor = os.environ.pop(ENVIRONMENT, None)
    return Near(None if descriptor is None else int(descriptor))
