"""What a job starts before it has a pipeline: Beam takes a second to import, in which work can go on.

Promises: the pipeline's worker finds it by the job's name, in the process that started it; it ends with the
block that keeps it, however that ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Protocol

_STARTED: dict[str, Any] = {}  # by job: Beam gives a worker nothing but copies


class Closable(Protocol):
    """What can be ended."""

    def close(self) -> None:
        """Ends it."""
        ...


@contextmanager
def kept(job: str, start: Callable[[], Closable]) -> Iterator[None]:
    """Starts something and keeps it for as long as the block lasts.

    Args:
        job: by which `started` finds it.
        start: what starts it.
    """
    with closing(start()) as found:
        _STARTED[job] = found
        try:
            yield
        finally:
            del _STARTED[job]


def started(job: str) -> Any:
    """What `kept` keeps for a job."""
    return _STARTED[job]
