"""What a Job's and its pods' status mean, in words: pure functions from the API's objects to sentences.

Promises: one sentence a trouble, naming what a person can do something about; the cluster's own message goes
with it; troubles that waiting does not mend are marked so.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from canopy import cli
from infra.manifests import INDEX_LABEL, KubeObject

EXIT_CODES = {
    cli.EXIT_BUG: "a bug: its log has the traceback",
    cli.EXIT_USER: "a mistake in its flags or its input",
    cli.EXIT_PEER_LOST: "another worker was lost or did not come, or a storage failed for a while",
    126: "its command is no program",
    127: "its command is not in the image",
    cli.EXIT_INTERRUPTED: "interrupted",
    cli.EXIT_TERMINATED: "stopped by SIGTERM, after a checkpoint where it keeps any",
}
# https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions
DISRUPTIONS = {
    "PreemptionByScheduler": "it made room for a pod of higher priority",
    "DeletionByTaintManager": "its node is lost, or taints it away",
    "EvictionByEvictionAPI": "it was evicted: its node is drained, or somebody asked for it",
    "DeletionByPodGC": "its node is gone",
    "TerminationByKubelet": "its node stopped it: short of resources, or shutting down",
}
# The kubelet's words for a pod that wrote more than it may: pkg/kubelet/eviction/eviction_manager.go.
OWN_LIMITS = (
    "Usage of EmptyDir volume",
    "Pod ephemeral local storage usage exceeds",
    "Container",  # NAME exceeded its local ephemeral storage limit
)
PULLS = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable")
STARTS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError")
# The reasons of events that tell of a failure, and of those that tell that it is over.
NOT_CREATED, CREATED = ("FailedCreate",), ("SuccessfulCreate",)
NOT_MOUNTED, MOUNTED = (
    ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"),
    ("Pulling", "Pulled", "Created", "Started"),  # a node comes to these once volumes and network are there
)


@dataclass(frozen=True)
class Trouble:
    """Why something does not go on."""

    what: str  # stays the same while the cluster's wording changes
    detail: str = ""  # the cluster's own words
    hopeless: bool = False  # whether waiting alone does not mend it

    def __str__(self) -> str:
        return f"{self.what}: {self.detail}" if self.detail else self.what


@dataclass(frozen=True)
class End:
    """How a Job or a container ended."""

    succeeded: bool
    sentence: str
    code: int  # one of canopy.cli's


def worker(pod: KubeObject) -> int | None:
    """A pod's place in an Indexed Job; None in another Job. The chief is 0."""
    metadata = pod["metadata"]
    found = {**(metadata.get("annotations") or {}), **(metadata.get("labels") or {})}.get(INDEX_LABEL)
    return int(found) if found is not None else None


def job_end(job: KubeObject) -> End | None:
    """How a Job ended, or None while it has not.

    Args:
        job: with its status.

    Returns:
        Its end; the code of a failure is EXIT_BUG, for want of its pods' codes.
    """
    for condition in _conditions(job):
        if condition.get("status") != "True":
            continue
        if condition.get("type") == "Complete":
            return End(True, "succeeded", cli.EXIT_OK)
        if condition.get("type") == "Failed":
            words = ": ".join(filter(None, (condition.get("reason"), condition.get("message"))))
            return End(False, f"failed ({words})" if words else "failed", cli.EXIT_BUG)
    return None


def job_trouble(job: KubeObject, events: Iterable[KubeObject]) -> Trouble | None:
    """Why a Job has no pods, or fewer than it wants, where that is so.

    Args:
        job: with its status.
        events: those about it, oldest first.
    """
    if (job.get("spec") or {}).get("suspend"):
        return Trouble("it is suspended, and waits for whoever suspended it (a queue, or a person)")
    event = _lasting(events, NOT_CREATED, CREATED)
    return _not_created(str(event.get("message", ""))) if event else None


def _lasting(
    events: Iterable[KubeObject], failures: Sequence[str], successes: Sequence[str]
) -> KubeObject | None:
    """The last event, oldest first, that tells of a failure, where no success came after it."""
    told = [event for event in events if event.get("reason") in (*failures, *successes)]
    return told[-1] if told and told[-1]["reason"] in failures else None


def _not_created(message: str) -> Trouble:
    words = (
        ("violates PodSecurity", "the namespace's Pod Security level forbids its pods", True),
        ("exceeded quota", "the namespace's quota has no room for its pods", False),
        ("failed quota", "the namespace's quota wants limits that its pods do not name", True),
        ("serviceaccount", "its ServiceAccount is not there", True),
        ("is forbidden", "the cluster forbids its pods", True),
        ("denied the request", "an admission webhook refuses its pods", True),
    )
    for sign, what, hopeless in words:
        if sign in message:
            return Trouble(what, message, hopeless)
    return Trouble("its pods cannot be created", message, hopeless=True)


def pod_trouble(pod: KubeObject, events: Iterable[KubeObject]) -> Trouble | None:
    """Why a pod does not run yet, or None where it runs, ended, or simply starts.

    Args:
        pod: with its status.
        events: those about it, oldest first.
    """
    for status in _containers(pod):
        waiting = (status.get("state") or {}).get("waiting")
        found = _waiting(status, waiting) if waiting else None
        if found:
            return found
    if _phase(pod) != "Pending":
        return None
    for condition in _conditions(pod):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return _unschedulable(pod, str(condition.get("message", "")))
    event = _lasting(events, NOT_MOUNTED, MOUNTED)
    if event is None:
        return None
    what = (
        "its network cannot be set up"
        if event["reason"] == "FailedCreatePodSandBox"
        else "a volume of it cannot be mounted"
    )
    message = str(event.get("message", ""))
    # Of an object; a new node's driver is not found either, before it has started there.
    return Trouble(what, message, hopeless='" not found' in message)


def _waiting(status: dict[str, Any], waiting: dict[str, Any]) -> Trouble | None:
    reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
    if reason in PULLS:
        return Trouble(f"the image {status.get('image')} cannot be pulled", message or reason, hopeless=True)
    if reason in STARTS:
        return Trouble("its container cannot be started", message or reason, hopeless=True)
    if reason == "CrashLoopBackOff":
        last = (status.get("lastState") or {}).get("terminated") or {}
        end = f", the last time with {container_end(last).sentence}" if last else ""
        return Trouble(f"its container ends again and again{end}")
    return None


def _unschedulable(pod: KubeObject, message: str) -> Trouble:
    missing = re.search(r'persistentvolumeclaim "([^"]+)" (not found|is being deleted)', message)
    if missing:
        return Trouble(f"its claim {missing[1]} is not there", message, hopeless=True)
    if "unbound" in message and "PersistentVolumeClaim" in message:
        claims = ", ".join(_claims(pod)) or "its claim"
        return Trouble(f"{claims} is not bound to a volume yet", message)
    short = tuple(dict.fromkeys(re.findall(r"Insufficient ([\w./-]+?)(?=[,.;]?(?:\s|$))", message)))
    return Trouble(_no_room(short, message), message)


def _no_room(short: tuple[str, ...], message: str) -> str:
    gpus = [resource for resource in short if "gpu" in resource]
    if gpus:
        return f"no node has a free GPU ({gpus[0]})"
    if short:
        return f"no node has enough {' and '.join(short)} free"
    if "olume node affinity" in message or "olume's node affinity" in message:
        return "no node that reaches its volume takes it"
    if "affinity" in message or "node selector" in message:
        return "no node has the labels that it asks for"
    if "taint" in message:
        return "every node has a taint that it does not tolerate"
    return "no node takes it"


def _claims(pod: KubeObject) -> list[str]:
    volumes = (pod.get("spec") or {}).get("volumes") or []
    return [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]


def pod_end(pod: KubeObject) -> End | None:
    """How a pod failed, or None where it did not.

    Args:
        pod: with its status.

    Returns:
        The sentence names the first of these that there is: the user's mistake, a limit, the disruption, the
        node's reason, the container's exit code; and what it left behind as its last word.
    """
    disrupted = next((c for c in _conditions(pod) if c.get("type") == "DisruptionTarget"), None)
    ended = [
        state["terminated"]
        for status in _containers(pod)
        if "terminated" in (state := status.get("state") or {})
    ]
    failed = [end for end in map(container_end, ended) if not end.succeeded]
    if _phase(pod) != "Failed" and not (disrupted or failed):
        return None
    mistakes = [end for end in failed if end.code == cli.EXIT_USER]
    if mistakes:  # it was made before the pod was disrupted, and the next pod makes it again
        return mistakes[0]
    status = pod.get("status") or {}
    message = str(status.get("message") or "").strip()
    if status.get("reason") == "Evicted" and message.startswith(OWN_LIMITS):
        return End(False, f"it wrote more than its manifest allows ({message})", cli.EXIT_BUG)
    if disrupted:
        reason = str(disrupted.get("reason"))
        words = DISRUPTIONS.get(reason, f"it was disrupted ({reason})")
        detail = f" ({disrupted['message']})" if disrupted.get("message") else ""
        return End(False, words + detail, cli.EXIT_PEER_LOST)
    if status.get("reason"):
        lost = status["reason"] in ("Evicted", "NodeLost", "Shutdown", "NodeShutdown", "Terminated")
        detail = f": {message}" if message else ""
        code = cli.EXIT_PEER_LOST if lost else cli.EXIT_BUG
        return End(False, f"its node stopped it ({status['reason']}{detail})", code)
    return failed[0] if failed else End(False, "it failed, and its status does not say why", cli.EXIT_BUG)


def container_end(terminated: dict[str, Any]) -> End:
    """What a container's exit code means.

    Args:
        terminated: `state.terminated` of its status.

    Returns:
        Its end, with the code that `infra.submit` ends with for it.
    """
    code = int(terminated.get("exitCode", 0))
    said = str(terminated.get("message") or "").strip()
    last_word = f'; it said "{said.splitlines()[-1]}"' if said else ""
    if code == 0:
        return End(True, "exit code 0", cli.EXIT_OK)
    if terminated.get("reason") == "OOMKilled":
        return End(False, "it took more memory than its limit and was killed (OOMKilled)", cli.EXIT_BUG)
    words = EXIT_CODES.get(code) or _signal(code)
    known = {cli.EXIT_USER: cli.EXIT_USER, 126: cli.EXIT_USER, 127: cli.EXIT_USER}
    again = (cli.EXIT_PEER_LOST, cli.EXIT_TERMINATED)
    verdict = cli.EXIT_PEER_LOST if code in again else known.get(code, cli.EXIT_BUG)
    return End(False, f"exit code {code}{f' ({words})' if words else ''}{last_word}", verdict)


def _signal(code: int) -> str:
    try:
        return f"killed by {signal.Signals(code - 128).name}" if code > 128 else ""
    except ValueError:
        return ""


def verdict(ends: Sequence[End]) -> int:
    """One exit code for a failed Job: a mistake comes first, then what is worth another try.

    Args:
        ends: its failed pods'.
    """
    codes = [end.code for end in ends]
    if cli.EXIT_USER in codes:
        return cli.EXIT_USER
    return cli.EXIT_PEER_LOST if codes and set(codes) == {cli.EXIT_PEER_LOST} else cli.EXIT_BUG


def standing(job: KubeObject, pods: Sequence[KubeObject]) -> str:
    """How a Job stands, in a few words: `1 of 2 pods done, 1 running`.

    Args:
        job: with its status.
        pods: its pods.
    """
    status = job.get("status") or {}
    wanted = (job.get("spec") or {}).get("completions")  # none of a work queue: its pods say when all is done
    phases = [_phase(pod) for pod in pods]
    counts = (
        (int(status.get("succeeded") or 0), f"of {wanted} done" if wanted else "done"),
        (phases.count("Running"), "running"),
        (phases.count("Pending"), "waiting"),
        (phases.count("Failed"), "failed"),
    )
    shown = [f"{count} {word}" for count, word in counts if count or word.endswith("done")]
    return f"pods: {', '.join(shown)}"


def is_over(pod: KubeObject) -> bool:
    """Whether a pod has ended, one way or the other."""
    return _phase(pod) in ("Succeeded", "Failed")


def _phase(pod: KubeObject) -> str:
    return str((pod.get("status") or {}).get("phase", "Pending"))


def _conditions(item: KubeObject) -> list[dict[str, Any]]:
    return list((item.get("status") or {}).get("conditions") or [])


def _containers(pod: KubeObject) -> list[dict[str, Any]]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
