"""The lines that a worker and its launcher log: who says it, as text for people or as JSON for clusters.

Promises: with `--log_format json` each line of either is one object on one line, and so is what a library
writes; only the last word of a command, its `error:` or what it made, is plain text either way. In a pod each
line says whose it is.
"""

from __future__ import annotations

import json
import logging
import sys
import time


class JsonLines(logging.Formatter):
    """One JSON object a line, for clusters that index their logs."""

    def __init__(self, worker: int) -> None:
        """Prepares.

        Args:
            worker: the index of the worker that speaks, or whose launcher does.
        """
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """The object: time (UTC), level, worker and message."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        return json.dumps(
            {"time": at, "level": record.levelname, "worker": self._worker, "message": record.getMessage()}
        )


def of_worker(log_format: str, index: int) -> None:
    """Sends a worker's log to stderr; all but the chief speak only of trouble.

    Args:
        log_format: `--log_format`.
        index: the worker's.
    """
    _send("canopy", log_format, index, f"[worker {index}] ", logging.WARNING if index else logging.INFO)


def of_launcher(log_format: str, index: int, is_pods: bool) -> None:
    """Sends a launcher's log to stderr.

    Args:
        log_format: `--log_format`.
        index: of its first worker.
        is_pods: whether it has no other, and its log may stand among those of other launchers.
    """
    prefix = f"[worker {index}] launch: " if is_pods else "launch: "
    _send("canopy.launch", log_format, index, prefix, logging.INFO)


def as_json(line: str, worker: int) -> str:
    """A line of a worker's stderr as an object: its own as they are, a library's as a warning."""
    if line.startswith('{"time": '):
        return line
    return JsonLines(worker).format(logging.LogRecord("", logging.WARNING, "", 0, line, None, None))


def _send(name: str, log_format: str, index: int, prefix: str, level: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter(f"{prefix}%(message)s")
    handler.setFormatter(JsonLines(index) if log_format == "json" else text)
    logger = logging.getLogger(name)
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level)
