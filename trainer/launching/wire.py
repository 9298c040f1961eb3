"""What launchers say to each other: JSON objects over a connection, one a line.

Promises: whoever holds a worker's port for a launcher begins with `GREETING`, which TensorFlow's server never
says; a side that is silent for too long counts as gone; a connection is closed at the end of a `with`; a port
is waited for until it can be held, and free again once it is closed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

GREETING = b"canopy "
# What understanding a line raises whose sender is no launcher; OSError is what it raises where nobody sends.
FOREIGN = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
SILENCE_SECONDS = 10.0  # without a line the other side counts as gone: its machine may have lost power
RETRY_SECONDS = 0.3  # between attempts to hold a port


class Line:
    """One connection. Whatever it does raises OSError where the other side is gone."""

    def __init__(self, connection: socket.socket) -> None:
        """Takes the connection over.

        Args:
            connection: whoever opened or accepted it.
        """
        connection.settimeout(SILENCE_SECONDS)
        self._connection, self._file = connection, connection.makefile("rb")
        self._saying = threading.Lock()

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it at once."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    @property
    def own_host(self) -> str:
        """The IP address under which the other side reaches this one."""
        found = ipaddress.ip_address(self._connection.getsockname()[0].partition("%")[0])
        inner = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
        return str(inner or found)

    def finish(self) -> None:
        """Says no more; what was said still arrives, which closing at once could prevent."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def greet(self, **words: Any) -> None:
        """Says the first words of whoever was connected to."""
        self._connection.sendall(GREETING + json.dumps(words).encode() + b"\n")

    def hear_greeting(self) -> None:
        """Waits for the first words of whoever this side connected to.

        Raises:
            ValueError: no launcher holds the port.
        """
        if not self._file.readline(4096).startswith(GREETING):
            raise ValueError("it still trains, in an earlier attempt")

    def say(self, **words: Any) -> None:
        """Sends an object; from any thread."""
        with self._saying:
            self._connection.sendall(json.dumps(words).encode() + b"\n")

    def hear(self) -> dict[str, Any]:
        """Waits for an object.

        Raises:
            ValueError: the other side closed the connection, or says something else.
        """
        line = self._file.readline(1 << 20)
        if not line.endswith(b"\n"):
            raise ValueError("the connection ended")
        found: dict[str, Any] = json.loads(line)
        return found


class Port:
    """A port of this machine that is held, and whoever connects to it is served."""

    def __init__(self, number: int, serve: Callable[[socket.socket], None]) -> None:
        """Holds nothing yet.

        Args:
            number: the port.
            serve: called with each connection, on a thread of its own.
        """
        self._number, self._serve = number, serve
        self._server: socket.socket | None = None
        self._opening, self._closed = threading.Lock(), threading.Event()
        self.refused = ""  # why it cannot be held; empty once it is

    def open(self) -> None:
        """Begins to hold it, as soon as that can be."""
        threading.Thread(target=self._hold, daemon=True).start()

    def close(self) -> None:
        """Lets go of it."""
        with self._opening:
            self._closed.set()
            if self._server is not None:
                with contextlib.suppress(OSError):
                    self._server.shutdown(socket.SHUT_RDWR)  # the port is held while anybody accepts
                self._server.close()

    def _hold(self) -> None:
        while (server := self._listen()) is None:
            # The training process of before may take a moment to give the port back.
            if self._closed.wait(RETRY_SECONDS):
                return
        while not self._closed.is_set():
            try:
                connection, _ = server.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
            except (OSError, RuntimeError):
                # It is closed, a caller went away, or others hold all files or threads that there are.
                self._closed.wait(RETRY_SECONDS)

    def _listen(self) -> socket.socket | None:
        """A listening socket on every address of this machine, IPv6 too where there is any."""
        with self._opening:
            try:
                if not self._closed.is_set():
                    both = socket.has_dualstack_ipv6()
                    family = socket.AF_INET6 if both else socket.AF_INET
                    self._server = socket.create_server(
                        ("", self._number), family=family, dualstack_ipv6=both, backlog=128
                    )
                    self.refused = ""
            except OSError as error:
                self.refused = error.strerror or str(error)
            return self._server
