"""Beam's own servers on this machine, out of others' reach.

Promises: while a pipeline runs here, Beam's servers are sockets in a folder that only this user may enter.
Left to themselves they listen on every address of the machine and ask nobody who they are: whoever reaches
one can read any file of the user's (Beam's artifact service hands out what is named), or answer as a worker.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = "CANOPY_BEAM_SOCKETS"  # a variable: tells workers where the sockets are
EVERYWHERE = "[::]:0"  # where Beam lets a server listen
LONGEST = 60  # characters of a temporary folder: of a socket's path systems take about a hundred


@contextlib.contextmanager
def private() -> Iterator[None]:
    """Has what Beam makes in the block use sockets: servers, clients and the processes that it starts."""
    import grpc

    place = tempfile.gettempdir()
    folder = tempfile.mkdtemp(prefix="canopy-", dir=place if len(place) <= LONGEST else "/tmp")
    numbers, make = itertools.count(1), grpc.server

    def server(*arguments: Any, **named: Any) -> Any:
        made = make(*arguments, **named)
        listen = made.add_insecure_port

        def add(address: str) -> int:
            if address != EVERYWHERE:
                return int(listen(address))
            number = next(numbers)
            listen(f"unix:{_socket(folder, number)}")
            return number  # Beam calls it localhost:NUMBER, and `connecting` knows what is meant

        made.add_insecure_port = add
        return made

    os.environ[FOLDER] = folder
    grpc.server = server
    try:
        with connecting():
            yield
    finally:
        grpc.server = make
        del os.environ[FOLDER]
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def connecting() -> Iterator[None]:
    """Has clients that are made in the block find the sockets; does nothing where there are none."""
    import grpc

    folder, connect = os.environ.get(FOLDER), grpc.insecure_channel

    def channel(target: str, *arguments: Any, **named: Any) -> Any:
        found = re.fullmatch(r"localhost:(\d+)", target)
        if found and folder and (path := _socket(folder, int(found[1]))).exists():
            target = f"unix:{path}"
        return connect(target, *arguments, **named)

    grpc.insecure_channel = channel
    try:
        yield
    finally:
        grpc.insecure_channel = connect


def _socket(folder: str, number: int) -> Path:
    return Path(folder, str(number))
