"""Notices within seconds that another worker is gone, whatever TensorFlow notices.

Promises: a worker whose training process ended, whose launcher met again without us, or whose machine does
not answer counts as lost, and why is said; a worker that is merely busy does not.

TensorFlow's server begins to speak (HTTP/2 settings) as soon as somebody connects, from threads of its own
that no long step holds up; a launcher at a meeting sends its greeting; a port nobody holds refuses.
"""

from __future__ import annotations

import contextlib
import enum
import json
import socket
import threading
import time
from collections.abc import Iterable

from trainer import cluster
from trainer.cluster import Place
from trainer.launching.rendezvous import Start
from trainer.launching.wire import FOREIGN, GREETING

PROBE_SECONDS = 1.0  # between two looks at a worker
ANSWER_SECONDS = 5.0  # for which one look waits for the connection, and again for its first bytes
SILENCE_SECONDS = 20.0  # without any answer: frozen, or cut off the network
START_SECONDS = 60.0  # from go until TensorFlow's server holds the port
REFUSALS = 2  # in a row: a single one may come from a full backlog
SILENCES = 2  # likewise: a single one may be a pause of this process itself


class Seen(enum.Enum):
    """What a look at a worker's port finds."""

    TRAINS = "it trains"
    MEETS = "its launcher waits for a new start"
    CLOSED = "nobody listens at its port"
    SILENT = "it does not answer"
    MOVED = "its name stands for another machine now, or for none"


def look(host: str, port: int) -> tuple[Seen, str]:
    """Looks at a worker's port.

    Args:
        host: name or IP address of its machine.
        port: of the worker.

    Returns:
        What was found, and the token of a launcher's greeting.
    """
    try:
        with socket.create_connection((host, port), ANSWER_SECONDS) as connection:
            first = connection.recv(4096)
    except ConnectionError:
        return Seen.CLOSED, ""
    except OSError:  # a timeout, or no route
        return Seen.SILENT, ""
    if first.startswith(GREETING):
        with contextlib.suppress(*FOREIGN):
            return Seen.MEETS, str(json.loads(first[len(GREETING) :])["token"])
        return Seen.MEETS, ""
    return (Seen.TRAINS if first else Seen.CLOSED), ""


class Watch:
    """Looks at the other workers while this one trains. Use as a context manager; `lost` says who is gone."""

    def __init__(self, place: Place, start: Start) -> None:
        """Looks at nothing yet.

        Args:
            place: of this launcher's worker.
            start: what the meeting came to.
        """
        self._place, self._start = place, start
        self._lost: list[str] = []
        self._over = threading.Event()

    def __enter__(self) -> Watch:
        for index in range(self._place.workers):
            if index != self._place.index:
                threading.Thread(target=self._keep_looking, args=(index,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def lost(self) -> str:
        """Who is gone, and how it showed; empty while all are there."""
        return self._lost[0] if self._lost else ""

    def stop(self) -> None:
        """Ends it: this worker needs the others no more."""
        self._over.set()
        self._lost.clear()

    def _keep_looking(self, index: int) -> None:
        address, token = self._place.addresses[index], self._start.tokens[index]
        name, port = cluster.split(address)
        machine = cluster.split(self._start.addresses[index])[0]
        known = _resolve(name)  # perhaps still of a machine before this one: name servers may be behind
        began = answered = time.monotonic()
        trained, refusals, silences = False, 0, 0
        while not self._over.wait(PROBE_SECONDS):
            seen, its_token = look(machine, port)
            now = time.monotonic()
            if seen is Seen.SILENT:
                found = _resolve(name, otherwise=known)
                if found != known and machine not in found:
                    seen = Seen.MOVED
            if seen is not Seen.SILENT:
                answered = now
            refusals = refusals + 1 if seen is Seen.CLOSED else 0
            silences = silences + 1 if seen is Seen.SILENT else 0
            trained = trained or seen is Seen.TRAINS
            starting = not trained and now - began < START_SECONDS
            gone = (
                seen is Seen.MOVED
                or (refusals >= REFUSALS and not starting)
                or (seen is Seen.MEETS and (its_token != token or not starting))
                or (silences >= SILENCES and now - answered >= SILENCE_SECONDS)
            )
            if gone and not self._over.is_set():
                self._lost.append(f"worker {index} at {address} is gone: {seen.value}")
                return


def _resolve(name: str, otherwise: Iterable[str] = ()) -> set[str]:
    """The IP addresses behind a name: none where there is no such name, `otherwise` where nobody can tell."""
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(name, None)}
    except socket.gaierror as error:
        return set() if error.errno == socket.EAI_NONAME else set(otherwise)
