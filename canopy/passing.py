"""Which of a file system's errors may pass: those of a disk or a file server that fails for a while.

Promises: what only a person can mend (no room, no right, no such file) is none of them, nor what is unknown.
"""

from __future__ import annotations

import errno

PASSING = frozenset(
    {
        errno.EIO,
        errno.ESTALE,  # its server was moved, or is another one by now
        errno.ETIMEDOUT,
        errno.ECONNRESET,
        errno.ENOTCONN,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
    }
)


def may_pass(error: OSError) -> bool:
    """Whether another try, or another pod with a new mount, may well get over an error."""
    return error.errno in PASSING
