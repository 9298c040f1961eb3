"""Waits for a Job, and says on the way what happens to it.

Promises: returns once the Job has succeeded, and raises `UnfinishedError` with the exit code otherwise;
the chief's log goes on across lost connections and replaced pods; the same trouble is told once.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from canopy import cli
from infra import backoff, diagnosis, endings
from infra.cluster_api import Cluster, RefusedError, UnreachableError
from infra.diagnosis import Trouble
from infra.endings import End
from infra.logs import LogTail
from infra.manifests import DEFAULT_CONTAINER, KubeObject, title
from infra.screen import Screen
from infra.settings import Settings

WATCH_SECONDS = 5  # pods are looked at whenever the Job changes, and this often
LOST_SECONDS = 300.0  # for which the cluster may be silent
LAST_LINES = 20  # of a failed pod's log
PAUSE_SECONDS = 1.0  # at least, from one reading of the Job to the next
# From when a pod is seen to have failed until the Job controller has long said so if that is the Job's end.
VERDICT_SECONDS = 3.0
SHOWN_PODS = 3  # of those that failed, with their last lines


class UnfinishedError(Exception):
    """A Job failed, or was not waited for to its end."""

    def __init__(self, sentence: str, code: int) -> None:
        """Keeps why.

        Args:
            sentence: for the user.
            code: the command's exit code.
        """
        super().__init__(sentence)
        self.code = code


class Follower:
    """Follows one Job."""

    def __init__(self, cluster: Cluster, screen: Screen, settings: Settings) -> None:
        """Takes what it works with.

        Args:
            cluster: where the Job is.
            screen: where everything is shown.
            settings: the flags.
        """
        self._cluster, self._screen, self._settings = cluster, screen, settings
        self._tail: LogTail | None = None
        self._followed: list[str] = []  # pods by uid, the tail's last
        self._told: set[tuple[str, str]] = set()
        self._hopeless_since: float | None = None
        self._failed_since: dict[str, float] = {}  # by the pod's uid

    def wait(self, job: KubeObject) -> float:
        """Waits until the Job has succeeded.

        Args:
            job: as the cluster has it.

        Returns:
            Seconds that it took, from this call on.

        Raises:
            UnfinishedError: it failed, is gone, took too long, or the cluster fell silent.
            RefusedError: the cluster does not let this be watched.
        """
        started = time.monotonic()
        try:
            for seen, pods in self._states(job):
                if self._settings.follow:
                    self._follow_chief(pods)
                end = endings.job_end(seen)
                if end is not None:
                    self._finish(seen, pods, end)
                    return time.monotonic() - started
                self._tell(seen, pods)
                self._check_patience(seen, time.monotonic() - started)
        finally:
            if self._tail is not None:
                self._tail.stop()
        raise AssertionError("states end with an exception only")

    def _states(self, job: KubeObject) -> Iterator[tuple[KubeObject, list[KubeObject]]]:
        """The Job with its pods: at each change of the Job, and every few seconds."""
        heard = time.monotonic()
        while True:
            began = time.monotonic()
            try:
                current = self._cluster.get(job)
                changes = () if current is None else self._cluster.job_changes(current, WATCH_SECONDS)
                for seen in itertools.chain([current], changes):
                    if seen is None or seen["metadata"]["uid"] != job["metadata"]["uid"]:
                        raise UnfinishedError(f"{title(job)} was deleted by somebody", cli.EXIT_BUG)
                    pods = self._cluster.pods(job)
                    heard = time.monotonic()
                    yield seen, pods
            except UnreachableError as error:
                silent = time.monotonic() - heard
                self._screen.note(f"the cluster has not answered for {silent:.0f} s ({error}): trying again")
                if silent >= LOST_SECONDS:
                    raise UnfinishedError(
                        f"the cluster does not answer any more ({error}); {title(job)} may go on: the same "
                        "command follows it again",
                        cli.EXIT_PEER_LOST,
                    ) from None
                time.sleep(PAUSE_SECONDS)
                continue
            if time.monotonic() - began < PAUSE_SECONDS:  # a watch that ends at once, as behind a proxy
                time.sleep(PAUSE_SECONDS)

    def _follow_chief(self, pods: Iterable[KubeObject]) -> None:
        chief = chief_of(pods, self._followed)
        if chief is None:
            return
        if self._tail is None or self._tail.uid != chief["metadata"]["uid"]:
            name = chief["metadata"]["name"]
            if self._tail is not None:
                self._tail.finish()
                self._screen.note(f"pod {self._tail.pod} is over: the log of pod {name} follows")
            self._followed.append(str(chief["metadata"]["uid"]))
            self._tail = LogTail(self._cluster, chief, container_of(chief), self._screen.log)
        self._tail.look(chief)

    def _finish(self, job: KubeObject, pods: list[KubeObject], end: End) -> None:
        if self._tail is not None:
            self._tail.finish()
        if end.succeeded:
            return
        failed = [(pod, found) for pod in _newest_first(pods) if (found := endings.pod_end(pod))]
        code = endings.verdict([found for _, found in failed])
        # Failures that were not counted, or that another pod mended, stay on the list: they come last.
        failed.sort(key=lambda each: each[1].code != code)
        for pod, found in failed[:SHOWN_PODS]:
            self._screen.note(f"{called(pod)}: {found.sentence}")
            self._last_words(pod)
        for trouble in self._job_troubles(job, pods):
            self._screen.note(f"{title(job)}: {trouble}")
        others = len(failed) - SHOWN_PODS
        more = f", {others} more pods likewise" if others > 0 else ""
        raise UnfinishedError(f"{title(job)} {end.sentence}{more}", code)

    def _last_words(self, pod: KubeObject) -> None:
        if self._tail is not None and self._tail.uid == pod["metadata"]["uid"]:
            return  # they stand right above
        try:
            name = pod["metadata"]["name"]
            lines = list(self._cluster.log(name, container_of(pod), tail=LAST_LINES, over=True))
        except (RefusedError, UnreachableError):
            return  # a lost node's logs are lost with it
        for line in lines:
            self._screen.note(f"    {line.partition(' ')[2]}")

    def _tell(self, job: KubeObject, pods: list[KubeObject]) -> None:
        """Shows how the Job stands, and each trouble once."""
        self._screen.standing(f"{title(job)}: {endings.standing(job, pods)}")
        decided = endings.job_verdict(job)
        if decided:
            self._once(
                job, f"{title(job)} {decided}, and is over when the last of its pods has ended", decided
            )
        hopeless = False
        of_claim = functools.cache(self._of_unbound)  # which all pods have: asked for once a look
        for trouble in self._job_troubles(job, pods):
            self._once(job, f"{title(job)}: {trouble}", trouble.what)
            hopeless |= trouble.hopeless
        for pod in sorted(pods, key=_by_worker):
            waits = endings.phase(pod) == "Pending"
            events = self._cluster.events(pod) if waits else ()
            found = diagnosis.pod_trouble(pod, events, of_claim)
            if found is not None:
                self._once(pod, f"{called(pod)} waits: {found}", found.what)
                hopeless |= found.hopeless
            ended = endings.pod_end(pod)
            if ended is not None:
                self._once(pod, f"{called(pod)}: {ended.sentence}", ended.sentence)
        self._tell_backoff(job, pods)
        if not hopeless:
            self._hopeless_since = None
        elif self._hopeless_since is None:
            self._hopeless_since = time.monotonic()

    def _tell_backoff(self, job: KubeObject, pods: list[KubeObject]) -> None:
        """Says why no pod takes a failed one's place yet, once the Job is known to go on."""
        now = time.monotonic()
        for wait in backoff.waits(job, pods, datetime.now(UTC)):
            since = self._failed_since.setdefault(str(wait.after["metadata"]["uid"]), now)
            if now - since >= VERDICT_SECONDS:
                self._once(wait.after, f"{title(job)}: {wait}", "backoff")

    def _of_unbound(self, claim: str) -> list[KubeObject]:
        """What was said about a claim that has no volume; nothing of any other, or where it cannot be had."""
        named = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim}}
        with contextlib.suppress(RefusedError, UnreachableError):
            found = self._cluster.get(named)
            if found and endings.phase(found) == "Pending":
                return self._cluster.events(found)
        return []

    def _job_troubles(self, job: KubeObject, pods: list[KubeObject]) -> list[Trouble]:
        if len(pods) - sum(map(endings.is_over, pods)) >= job["spec"].get("parallelism", 1):
            return []
        found = diagnosis.job_trouble(job, self._cluster.events(job))
        return [found] if found else []

    def _once(self, item: KubeObject, text: str, what: str) -> None:
        key = (str(item["metadata"]["uid"]), what)
        if key not in self._told:
            self._told.add(key)
            self._screen.note(text)

    def _check_patience(self, job: KubeObject, waited: float) -> None:
        name = title(job)
        if self._hopeless_since is not None:
            lasted = time.monotonic() - self._hopeless_since
            if lasted >= self._settings.patience:
                raise UnfinishedError(
                    f"{name} does not start for the reason above, and waiting does not mend it (--patience): "
                    "mend it and give the same command with --replace, or take it away with --delete",
                    cli.EXIT_USER,
                )
        if self._settings.timeout and waited >= self._settings.timeout:
            raise UnfinishedError(
                f"{name} has not ended after {waited:.0f} s (--timeout); it goes on, and the same command "
                "follows it again",
                cli.EXIT_PEER_LOST,
            )


def chief_of(pods: Iterable[KubeObject], followed: Sequence[str] = ()) -> KubeObject | None:
    """The pod whose log is shown: of index 0; without indices, where several may run at a time, any.

    Args:
        pods: a Job's.
        followed: the uids of those shown so far. The last one is kept until it has ended, or is being deleted
            where another is there.

    Returns:
        None where there is none, or no other than before.
    """
    chiefs = sorted((pod for pod in pods if not endings.worker(pod)), key=_by_worker)
    current = next((pod for pod in chiefs if followed and pod["metadata"]["uid"] == followed[-1]), None)
    fresh = [pod for pod in chiefs if pod["metadata"]["uid"] not in followed]
    if (
        current
        and not endings.is_over(current)
        and not (fresh and "deletionTimestamp" in current["metadata"])
    ):
        return current
    going = [pod for pod in fresh if not endings.is_over(pod)]
    if going:
        return going[0]
    return chiefs[-1] if chiefs and chiefs[-1] in fresh else current


def container_of(pod: KubeObject) -> str:
    """The container whose log counts: the one that an annotation names, else the first."""
    named = (pod["metadata"].get("annotations") or {}).get(DEFAULT_CONTAINER)
    return str(named or pod["spec"]["containers"][0]["name"])


def called(pod: KubeObject) -> str:
    """How a pod is named in sentences: `pod canopy-train-1-x7f2k (worker 1)`."""
    index = endings.worker(pod)
    return f"pod {pod['metadata']['name']}" + (f" (worker {index})" if index is not None else "")


def _newest_first(pods: Iterable[KubeObject]) -> list[KubeObject]:
    """Pods, the last ones made first; those made together by worker."""
    return sorted(sorted(pods, key=_by_worker), key=lambda pod: _by_worker(pod)[1], reverse=True)


def _by_worker(pod: KubeObject) -> tuple[int, str]:
    return endings.worker(pod) or 0, str(pod["metadata"].get("creationTimestamp"))
