"""Follows one pod's log through lost connections.

Promises: lines come in order and none twice; none is lost as long as the node keeps the log (one that turns
its log files over, or dies, takes lines with it that nobody has read yet).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from infra import endings
from infra.cluster_api import Cluster, RefusedError, UnreachableError
from infra.manifests import KubeObject

PAUSE_SECONDS = 0.5  # before a log is asked for again
DRAIN_SECONDS = 20.0  # for what is left of an ended container's log


class Deduplicator:
    """Drops the lines that come a second time when a log is read on: the API starts at a whole second only.

    A line is known by its time and text, and those that are alike are counted. Times need not be in order: a
    container's stdout and stderr are stamped apart.
    """

    def __init__(self) -> None:
        self.last: str | None = None  # the time of the latest line that was passed on, as the API writes it
        self._passed: Counter[str] = Counter()  # lines passed on of that second: they will come again
        self._again: Counter[str] = Counter()  # those of them that have not come since the log was asked for

    def restart(self) -> None:
        """The log is read again, from the second of `last` on."""
        self._again = self._passed.copy()

    def fresh(self, line: str) -> str | None:
        """A line without its time, or None where it was passed on before.

        Args:
            line: RFC 3339 time, a blank, the text.
        """
        if self._again[line] > 0:
            self._again[line] -= 1
            return None
        stamp, _, text = line.partition(" ")
        if self.last is None or _second(stamp) > _second(self.last):
            self.last = stamp
            self._passed.clear()
        if _second(stamp) == _second(self.last):
            self._passed[line] += 1
        return text


def _second(stamp: str) -> str:
    return stamp.removesuffix("Z").partition(".")[0]


class LogTail:
    """Passes a container's log on, line by line, on a thread of its own."""

    def __init__(
        self, cluster: Cluster, pod: KubeObject, container: str, write: Callable[[str], None]
    ) -> None:
        """Starts once the container has.

        Args:
            cluster: where the pod is.
            pod: the pod.
            container: its container.
            write: takes a line; called on this object's thread.
        """
        self.pod, self.uid = str(pod["metadata"]["name"]), str(pod["metadata"]["uid"])
        self._cluster, self._container, self._write = cluster, container, write
        self._ended = threading.Event()  # the container has: one more reading is whole
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._unwritten: OSError | None = None  # why a line could not be passed on

    def look(self, pod: KubeObject) -> None:
        """Takes note of the pod's status: whether there is something to read, or nothing more to come.

        Raises:
            OSError: what `write` raised on the thread: nobody reads what is printed, or its disk is full.
        """
        if self._unwritten:
            raise self._unwritten
        if endings.is_over(pod):
            self._ended.set()
        if endings.phase(pod) != "Pending" and self._thread.ident is None:
            self._thread.start()

    def finish(self) -> None:
        """Waits for the rest of the log: the pod has ended or is gone. Raises as `look` does."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(DRAIN_SECONDS)
        self.stop()
        if self._unwritten:
            raise self._unwritten

    def stop(self) -> None:
        """Passes nothing on any more."""
        self._stopped.set()

    def _follow(self) -> None:
        lines = Deduplicator()
        try:
            while not self._stopped.is_set():
                whole = self._ended.is_set()  # before the reading begins, not after
                if self._read(lines, whole) and whole:
                    return
                self._stopped.wait(PAUSE_SECONDS)
        except OSError as error:  # of stdout: the cluster's are others
            self._unwritten = error

    def _read(self, lines: Deduplicator, over: bool) -> bool:
        """Reads the log to its end, and returns whether there is no use in asking again once it has ended."""
        lines.restart()
        log = self._cluster.log
        try:
            for line in log(self.pod, self._container, since=lines.last, follow=True, over=over):
                if self._stopped.is_set():
                    return True
                text = lines.fresh(line)
                if text is not None:
                    self._write(text)
        except UnreachableError:
            return False
        except RefusedError as refused:
            if refused.status in (401, 403):
                self._write(f"(the log of {self.pod} may not be read: {refused.message})")
                self.stop()
            # 404: the pod is gone. 400: its container has not started, or its log is gone.
            return refused.status in (400, 404)
        return True
