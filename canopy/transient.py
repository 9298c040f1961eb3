"""Which of a file system's errors are transient: those of a disk or a file server that fails for a while.

Promises: what only a person can mend (no room, no right, no such file) is none of them, nor what is unknown.
"""

from __future__ import annotations

import errno

from canopy.cli import TryAgainError, UserError

TRANSIENT = frozenset(
    {
        errno.EIO,
        errno.ESTALE,  # its server was moved, or is another one by now
        errno.ETIMEDOUT,
        errno.ECONNRESET,
        errno.ECONNABORTED,  # what served a mount died under a request
        errno.ENOTCONN,  # and before it
        errno.ESHUTDOWN,  # CephFS has shut this node out: a new mount is let in
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        getattr(errno, "EREMOTEIO", errno.EIO),  # the server's own disk; Linux only
    }
)


def is_transient(error: OSError) -> bool:
    """Whether another try, or another pod with a new mount, may well get over an error."""
    return error.errno in TRANSIENT


def told(text: str, error: OSError) -> UserError | TryAgainError:
    """The exception that tells of an error: whether another try is worth while is its type."""
    return TryAgainError(text) if is_transient(error) else UserError(text)
