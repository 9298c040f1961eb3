"""How every command ends: one clear sentence and the right exit code.

Promises: a `UserError` becomes one line on stderr and exit code 2, Ctrl-C exit code 130, and only a bug
shows a traceback (exit code 1). Exit codes are Canopy's own agreement with shells and Kubernetes.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USER = 2
EXIT_PEER_LOST = 75  # EX_TEMPFAIL of sysexits.h: worth a restart
EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_TERMINATED = 143  # 128 + SIGTERM


class UserError(Exception):
    """The user's mistake: its text is one sentence that names the file, the flag or the row."""


class PeerLostError(Exception):
    """Another worker was lost or did not come: a restart may well succeed."""


def run(command: Callable[[], None]) -> int:
    """Calls `command` and turns how it ended into an exit code.

    Args:
        command: the whole work of a command, raising `UserError` or `PeerLostError` where those apply.

    Returns:
        One of the EXIT_ codes. A bug's exception is not caught: Python's own traceback and code 1 serve.
    """
    try:
        command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return EXIT_USER
    except PeerLostError as error:
        print(f"peer lost: {error}", file=sys.stderr, flush=True)
        return EXIT_PEER_LOST
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return EXIT_INTERRUPTED
    return EXIT_OK


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are `UserError`s, and that takes no abbreviations."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raises instead of printing the whole usage."""
        raise UserError(f"{message} (see --help)")


def quiet_libraries() -> None:
    """Keeps Beam's and gRPC's start-up chatter off the screen; call before importing either."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
