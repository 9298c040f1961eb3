"""Meetings of launchers: their places, what they come to, and somebody who calls."""

import socket
import time

from tests.trainer.surviving import wait_for
from trainer import cluster
from trainer.cluster import Place
from trainer.launching import watch
from trainer.launching.wire import Line


def places(workers):
    addresses = tuple(f"127.0.0.1:{port}" for port in cluster.free_ports(workers))
    return [Place(index, addresses) for index in range(workers)]


def named(name, index, run="this one"):
    """Places of two pods whose names are found where `name` says."""
    ports = cluster.free_ports(2)
    return Place(index, tuple(f"{name}:{port}" for port in ports), by_name=True, run=run)


def results(meetings, seconds=10.0):
    """What each meeting came to, polled together."""
    deadline = time.monotonic() + seconds
    found = [None] * len(meetings)
    while None in found and time.monotonic() < deadline:
        found = [found[i] or meeting.poll() for i, meeting in enumerate(meetings)]
        time.sleep(0.02)
    return found


def call(place, **words):
    """Somebody who calls a place's launcher, and says who it is as worker 1's launcher would."""
    address = cluster.split(place.addresses[place.index])
    wait_for(lambda: watch.look(*address)[0] is watch.Seen.MEETS, seconds=30)
    line = Line(socket.create_connection(address))
    line.hear_greeting()
    usual = {"run": "", "index": 1, "workers": place.workers, "token": "its", "host": "127.0.0.1"}
    line.say(**usual | words)
    return line
