"""What launchers say to each other: JSON objects over a connection, one a line.

Promises: whoever holds a worker's port for a launcher begins with `GREETING`, which TensorFlow's server never
says; a side that is silent for too long counts as gone; a connection is closed at the end of a `with`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import threading
from typing import Any

GREETING = b"canopy "
# What understanding a line raises whose sender is no launcher; OSError is what it raises where nobody sends.
FOREIGN = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
SILENCE_SECONDS = 10.0  # without a line the other side counts as gone: its machine may have lost power


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
        """The number under which the other side reaches this one."""
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
        """Waits for these.

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


def listen_at(port: int) -> socket.socket:
    """A listening socket on every address of this machine, IPv6 too where there is any."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
    return socket.create_server(("", port), backlog=128)
