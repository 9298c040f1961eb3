"""When the Job controller makes the next pod: pure functions from the API's objects to seconds and words.

Promises: the rules are those of Kubernetes 1.30 and later, in pkg/controller/job/backoff_utils.go: 10 s from
the end of the last pod that failed, twice as long with each further failure, ten minutes at most; failures
that a podFailurePolicy ignores count. Nothing is said where it is open whether a pod comes at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from infra import endings
from infra.manifests import KubeObject

FIRST_SECONDS, LONGEST_SECONDS = 10, 600  # DefaultJobPodFailureBackOff and MaxJobPodFailureBackOff
CONTROLLER = "kubernetes.io/job-controller"  # in managedBy, where that names any
# A pod has it until the controller has counted it: with backoffLimitPerIndex, until another takes its place.
COUNTING = "batch.kubernetes.io/job-tracking"
# Of the index, before this pod; together they are what the controller goes by.
FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED = "batch.kubernetes.io/job-index-ignored-failure-count"


@dataclass(frozen=True)
class Wait:
    """A pod that is to come."""

    after: KubeObject  # the pod that failed last, whose place it takes
    worker: int | None  # its index, where each waits for itself
    failures: int  # since the last success
    seconds: float  # until it comes, by the clock that `waits` was given

    def __str__(self) -> str:
        whose = "" if self.worker is None else f" of worker {self.worker}"
        times = "a failure" if self.failures == 1 else f"{self.failures} failures"
        return (
            f"the next pod{whose} comes in about {self.seconds:.0f} s: the Job controller backs off, "
            f"{delay(self.failures)} s after {times}"
        )


def waits(job: KubeObject, pods: Sequence[KubeObject], now: datetime) -> list[Wait]:
    """The pods that the Job controller will make, and holds back.

    Args:
        job: with its status.
        pods: its pods.
        now: by this machine's clock: where it is behind the cluster's, a wait counts as if it began now.

    Returns:
        By worker; empty where the Job does not go on, or ends before that.
    """
    spec, status = job.get("spec") or {}, job.get("status") or {}
    decided = endings.job_end(job) or endings.job_verdict(job)
    if decided or spec.get("suspend") or spec.get("managedBy", CONTROLLER) != CONTROLLER:
        return []
    per_worker = spec.get("backoffLimitPerIndex") is not None
    found = _of_workers(spec, pods, now) if per_worker else _of_all(spec, status, pods, now)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline and status.get("startTime"):
        left = (_time(status["startTime"]) + timedelta(seconds=deadline) - now).total_seconds()
        found = [wait for wait in found if wait.seconds < left]
    return [wait for wait in found if wait.seconds > 0]


def _of_workers(spec: dict[str, Any], pods: Iterable[KubeObject], now: datetime) -> list[Wait]:
    """With backoffLimitPerIndex each index waits for itself."""
    if spec.get("parallelism", 1) < spec["completions"]:
        return []  # others may come first
    by_worker: dict[int, list[KubeObject]] = {}
    for pod in pods:
        by_worker.setdefault(endings.worker(pod) or 0, []).append(pod)
    found = []
    for worker, own in sorted(by_worker.items()):
        if any(endings.phase(pod) != "Failed" for pod in own):
            continue
        # The controller lets go of it where the index has failed for good, or is no longer wanted.
        held = [pod for pod in own if COUNTING in (pod["metadata"].get("finalizers") or [])]
        if held:
            last = max(held, key=lambda pod: (_failures(pod), finished(pod)))
            found.append(_wait(last, worker, _failures(last), now))
    return found


def _of_all(
    spec: dict[str, Any], status: dict[str, Any], pods: Sequence[KubeObject], now: datetime
) -> list[Wait]:
    """Otherwise all wait together, and for the failures of all."""
    parallelism, completions = spec.get("parallelism", 1), spec.get("completions")
    succeeded = [finished(pod) for pod in pods if endings.phase(pod) == "Succeeded"]
    done = max(len(succeeded), status.get("succeeded") or 0)
    if completions is None and done:
        return []  # a work queue that is done makes no pods any more
    wanted = parallelism if completions is None else min(parallelism, completions - done)
    failed = [pod for pod in pods if endings.phase(pod) == "Failed"]
    failed = [pod for pod in failed if not succeeded or finished(pod) > max(succeeded)]
    if not failed or sum(not endings.is_over(pod) for pod in pods) >= wanted:
        return []
    return [_wait(max(failed, key=finished), None, len(failed), now)]


def _wait(last: KubeObject, worker: int | None, failures: int, now: datetime) -> Wait:
    passed = max(0.0, (now - finished(last)).total_seconds())
    return Wait(last, worker, failures, delay(failures) - passed)


def delay(failures: int) -> int:
    """Seconds from the last failure to the next pod, after so many of them."""
    return min(LONGEST_SECONDS, FIRST_SECONDS << (failures - 1))


def _failures(pod: KubeObject) -> int:
    """Those of an index up to this pod's own."""
    annotations = pod["metadata"].get("annotations") or {}
    before = (str(annotations.get(key)) for key in (FAILURES, IGNORED))
    return sum(int(count) for count in before if count.isdecimal()) + 1


def finished(pod: KubeObject) -> datetime:
    """When a pod ended, as the controller sees it: the first of these that there is.

    The last end of its containers, where all have one; when it was no longer ready; its deletion; its making.
    """
    metadata, status = pod["metadata"], pod.get("status") or {}
    sidecars = endings.sidecars(pod)
    counted = [
        *(status.get("containerStatuses") or []),
        *(each for each in status.get("initContainerStatuses") or [] if each.get("name") in sidecars),
    ]
    ends = [((each.get("state") or {}).get("terminated") or {}).get("finishedAt") for each in counted]
    if ends and all(ends):
        return max(_time(str(end)) for end in ends)
    for each in endings.conditions(pod):
        if (each.get("type"), each.get("status")) == ("Ready", "False") and each.get("lastTransitionTime"):
            return _time(each["lastTransitionTime"])
    if metadata.get("deletionTimestamp"):
        grace = timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0)
        return _time(metadata["deletionTimestamp"]) - grace
    return _time(metadata["creationTimestamp"])


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
