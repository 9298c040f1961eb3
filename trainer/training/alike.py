"""Whether all workers of a run were started alike.

Promises: workers with different settings or data end together, each with what differs, whoever came first and
however late a network file system shows one what another has written: they tell each other.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable, Sequence

from canopy.cli import UserError
from trainer.config import Config

Gather = Callable[[Sequence[int]], Sequence[Sequence[int]]]

# In which a worker may differ from the others. A later start may change more, such as how often it saves,
# but all workers save together.
OF_A_WORKER = frozenset({"data", "model_dir", "restart", "require_gpu", "profile", "log_format"})


def check(config: Config, fingerprint: str, gather: Gather) -> None:
    """Compares the workers; to be called by all of them.

    Args:
        config: this worker's settings.
        fingerprint: of its data set.
        gather: called by every worker with as many numbers; returns each one's, in the workers' order.

    Raises:
        UserError: on every worker, naming the first that differs from the chief, and in what.
    """
    mine = _terms(config, fingerprint).encode()
    if len({row[0] for row in gather([zlib.crc32(mine)])}) == 1:
        return
    width = max(row[0] for row in gather([len(mine)]))
    _compare([bytes(row).decode() for row in gather(list(mine.ljust(width)))])


def _terms(config: Config, fingerprint: str) -> str:
    """What all workers have to be started with: equal text for equal settings and data."""
    shared = {
        f"--{name}": value for name, value in dataclasses.asdict(config).items() if name not in OF_A_WORKER
    }
    return json.dumps({"fingerprint of --data": fingerprint[:12], **shared})


def _compare(texts: Sequence[str]) -> None:
    first, *others = (dict(json.loads(text)) for text in texts)
    for index, other in enumerate(others, start=1):
        found = [
            f"{name}: {first.get(name)!r} and {other.get(name)!r}"
            for name in {**first, **other}
            if first.get(name) != other.get(name)
        ]
        if found:
            raise UserError(
                f"worker 0 and worker {index} were started with different settings or data "
                f"({'; '.join(found)}): give all workers of a run the same"
            )
