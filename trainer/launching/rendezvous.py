"""Launchers of one run find each other before any of them starts TensorFlow's cluster.

Promises: all start together or none does; whoever is still missing when the deadline passes is named with
index and address; what ends the run for good at one launcher can be told to the others.

TensorFlow itself waits for its peers for ever. While no training process holds a worker's port, its launcher
does, and greets whoever connects. The chief's launcher gathers the others: each keeps a connection open until
the chief says go.

A pod that takes a lost one's place has another IP address, and name servers may give the old one for half a
minute. So each launcher says at which address it is reached, and all train by these; and a chief calls the
others, which could not find it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

from canopy import cli
from trainer import cluster
from trainer.cluster import Place
from trainer.launching.wire import FOREIGN, Line, Port

BEAT_SECONDS = 1.0  # between lines on an open connection, whether there is news or not
CONNECT_SECONDS = 3.0  # for one attempt: nobody may be at that address any more, and the next may know better
RETRY_SECONDS = 0.3  # between attempts to reach the chief: its name may not resolve yet, or it still trains


@dataclass(frozen=True)
class Start:
    """All are there: the training processes may begin."""

    tokens: tuple[str, ...]  # what each launcher's greeting says while it has not left this very meeting
    addresses: tuple[str, ...]  # IP address and port of every worker, in order


@dataclass(frozen=True)
class End:
    """Another launcher's run ended in a way that no restart mends."""

    code: int
    why: str


@dataclass
class _Guest:
    """A launcher that is connected to the chief's."""

    line: Line
    token: str
    host: str  # its IP address
    ready: bool = False


class Meeting:
    """One launcher's part in a meeting. Use as a context manager, and call `poll` until it says something."""

    def __init__(self, place: Place) -> None:
        """Does nothing yet.

        Args:
            place: of this launcher's worker, with the addresses of all.
        """
        self.place, self.token = place, uuid.uuid4().hex
        self._port = Port(cluster.split(place.addresses[place.index])[1], self._greet)
        self._changed = threading.Condition()
        self._ready = self._over = False
        self._result: Start | End | None = None
        self._last_words: End | None = None
        self._told: set[int] = set()  # who has heard the last words
        others = range(1, place.workers) if place.is_chief else range(1)
        self._missing = dict.fromkeys(others, "not there")  # index to what is known of it
        self._guests: dict[int, _Guest] = {}  # of the chief
        self._visits: list[Line] = []  # to the chief: one at a time
        self._called_from = ""  # the chief's IP address, where it has called

    def __enter__(self) -> Meeting:
        self._port.open()
        if not self.place.is_chief:
            threading.Thread(target=self._visit, daemon=True).start()
        elif self.place.by_name:
            for index in range(1, self.place.workers):
                threading.Thread(target=self._call, args=(index,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()
            self._port.close()
            for line in (*(guest.line for guest in self._guests.values()), *self._visits):
                line.finish()

    def ready(self) -> None:
        """Says that this launcher's training process only waits for the others."""
        with self._changed:
            self._ready = True
            self._changed.notify_all()

    def poll(self) -> Start | End | None:
        """What the meeting came to, None while it goes on."""
        with self._changed:
            if self.place.is_chief and self._result is None:
                self._result = self._gathered()
            return self._result

    def missing(self) -> str:
        """Who has not come, each with index and address, or what keeps the others from coming here."""
        addresses = self.place.addresses
        if self._port.refused:
            own = addresses[self.place.index]
            return f"worker {self.place.index} cannot hold {own} ({self._port.refused})"
        with self._changed:
            absent = [f"worker {i} at {addresses[i]} ({why})" for i, why in sorted(self._missing.items())]
        return ", ".join(absent) or "nobody is missing, but not all are ready"

    def tell_all(self, end: End, seconds: float) -> None:
        """Tells the others of an end that no restart mends; gives up after `seconds`.

        Best effort: a launcher that does not hear it finds out for itself, or gives up in its time.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            self._last_words = end
            self._changed.notify_all()
            others = self.place.workers - 1 if self.place.is_chief else 1
            while len(self._told) < others and time.monotonic() < deadline:
                self._changed.wait(0.1)

    # Both sides.

    def _connected(self, address: str) -> Line:
        return Line(socket.create_connection(cluster.split(address), CONNECT_SECONDS))

    def _hello(self, line: Line) -> dict[str, Any]:
        """Who this is."""
        return {
            "run": self.place.run,
            "index": self.place.index,
            "workers": self.place.workers,
            "token": self.token,
            "host": line.own_host,
        }

    def _greet(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, *FOREIGN), Line(connection) as line:
            line.greet(token=self.token)
            hello = line.hear()
            if hello["run"] != self.place.run:
                return
            index, workers = int(hello["index"]), int(hello["workers"])
            if not self.place.is_chief:
                if index == 0:
                    self._called_from = str(hello["host"])
                return
            if workers != self.place.workers or not 0 < index < workers:
                why = f"worker {index} counts {workers} workers and the chief {self.place.workers}"
                line.say(end=cli.EXIT_USER, why=why)
                return
            if "end" in hello:
                with self._changed:
                    self._result = End(int(hello["end"]), str(hello["why"]))
                    self._told.add(index)
                line.say(heard=True)
                return
            self._host(line, index, _Guest(line, str(hello["token"]), str(hello["host"])))

    # The chief's side.

    def _gathered(self) -> Start | End | None:
        """Whether all are there and ready; then they are told to go."""
        ready = all(guest.ready for guest in self._guests.values())
        if self._missing or not ready or not self._ready or self._last_words:
            return None
        guests = [self._guests[i] for i in range(1, self.place.workers)]
        try:
            start = Start((self.token, *(guest.token for guest in guests)), self._reached_at(guests))
            for guest in guests:
                guest.line.say(go=start.tokens, at=start.addresses)
        except OSError:
            # Those that were told already find the chief at another meeting, and come back to it.
            self.token = uuid.uuid4().hex
            return None
        return start

    def _reached_at(self, guests: list[_Guest]) -> tuple[str, ...]:
        """The addresses of all, with IP addresses in place of names."""
        if not self.place.by_name:
            return self.place.addresses
        hosts = (guests[0].line.own_host, *(guest.host for guest in guests))
        ports = (cluster.split(address)[1] for address in self.place.addresses)
        return tuple(map(cluster.join, hosts, ports))

    def _call(self, index: int) -> None:
        """Tells one that has not come where this launcher is."""
        while not self._over and self._result is None:
            if index in self._missing:
                with (
                    contextlib.suppress(OSError, ValueError),
                    self._connected(self.place.addresses[index]) as line,
                ):
                    line.hear_greeting()
                    line.say(**self._hello(line))
            time.sleep(BEAT_SECONDS)

    def _host(self, line: Line, index: int, guest: _Guest) -> None:
        """Keeps a guest's connection for as long as the guest gives signs of life."""
        with self._changed:
            self._guests[index] = guest
            self._missing.pop(index, None)
        threading.Thread(target=self._keep_telling, args=(line, index), daemon=True).start()
        try:
            while True:
                guest.ready = bool(line.hear()["ready"])
        finally:
            with self._changed:
                if self._guests.get(index) is guest and self._result is None:
                    del self._guests[index]
                    self._missing[index] = "it went away"

    def _keep_telling(self, line: Line, index: int) -> None:
        with contextlib.suppress(OSError):
            while not self._over:
                with self._changed:
                    words = self._last_words
                    missing = {str(i): why for i, why in self._missing.items()}
                if words is not None:
                    line.say(end=words.code, why=words.why)
                    with self._changed:
                        self._told.add(index)
                        self._changed.notify_all()
                    return
                line.say(missing=missing)
                with self._changed:
                    self._changed.wait(BEAT_SECONDS)

    # The others' side.

    def _visit(self) -> None:
        """Stays connected to the chief's launcher, and comes back for as long as the meeting lasts."""
        given = self.place.addresses[0]
        while not self._over and self._result is None:
            told, self._called_from = self._called_from, ""
            try:
                with self._connected(cluster.join(told, cluster.split(given)[1]) if told else given) as line:
                    self._visits = [line]
                    line.hear_greeting()
                    self._stay(line)
            except (OSError, *FOREIGN) as error:
                # A name that does not resolve, a chief that still trains, a line that is no greeting.
                with self._changed:
                    self._missing = {0: getattr(error, "strerror", None) or str(error)}
            time.sleep(RETRY_SECONDS)

    def _stay(self, line: Line) -> None:
        hello = self._hello(line)
        if self._last_words is not None:
            line.say(**hello, end=self._last_words.code, why=self._last_words.why)
            line.hear()
            with self._changed:
                self._told.add(0)
                self._changed.notify_all()
            return
        line.say(**hello)
        threading.Thread(target=self._keep_saying_ready, args=(line,), daemon=True).start()
        while not self._over and self._last_words is None:
            news = line.hear()
            with self._changed:
                if "go" in news:
                    self._result = Start(tuple(news["go"]), tuple(news["at"]))
                    return
                if "end" in news:
                    self._result = End(int(news["end"]), str(news["why"]))
                    self._told.add(0)
                    return
                self._missing = {int(i): why for i, why in news["missing"].items()}

    def _keep_saying_ready(self, line: Line) -> None:
        with contextlib.suppress(OSError):
            while not self._over:
                line.say(ready=self._ready)
                with self._changed:
                    self._changed.wait(BEAT_SECONDS)
