"""How Jobs, pods and containers stand and end: pure functions from the API's objects to sentences and codes.

Promises: an end is one sentence that a person can act upon, with the container's last word, and one of
Canopy's exit codes; what the user got wrong comes before what waiting or another try may mend.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from canopy import cli
from infra.manifests import INDEX_LABEL, KubeObject

# What a container's exit code means, and what `infra.submit` ends with for it; for any other, EXIT_BUG.
EXIT_CODES = {
    cli.EXIT_BUG: ("a bug: its log has the traceback", cli.EXIT_BUG),
    cli.EXIT_USER: ("a mistake in its flags or its input", cli.EXIT_USER),
    cli.EXIT_PEER_LOST: (
        "another worker was lost or did not come, or a storage failed for a while",
        cli.EXIT_PEER_LOST,
    ),
    126: ("its command is no program", cli.EXIT_USER),
    127: ("its command is not in the image", cli.EXIT_USER),
    cli.EXIT_INTERRUPTED: ("interrupted", cli.EXIT_BUG),
    cli.EXIT_TERMINATED: ("stopped by SIGTERM, after a checkpoint where it keeps any", cli.EXIT_PEER_LOST),
}
# Reasons with which a node makes up the exit code. containerd: StartError (128) and Unknown (255), in
# internal/cri/server/container_start.go and restart.go; the kubelet: ContainerStatusUnknown (137), in
# pkg/kubelet/kubelet_pods.go and status/status_manager.go.
NOT_STARTED = "StartError"
LOST = ("ContainerStatusUnknown", "Unknown")
# runc's and crun's words where the command is at fault, and not the node's GPU or disk.
NO_PROGRAM = re.compile(r'container process: (error during container init: )?exec: "|executable file `')
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
REFUSED = "Pod was rejected"  # and for one that it does not take: pkg/kubelet/kubelet.go, rejectPod
LEFT = ("Evicted", "NodeLost", "Shutdown", "NodeShutdown", "Terminated")


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
    for condition in _true(job):
        if condition.get("type") == "Complete":
            return End(True, "succeeded", cli.EXIT_OK)
        if condition.get("type") == "Failed":
            return End(False, _failed(condition), cli.EXIT_BUG)
    return None


def job_verdict(job: KubeObject) -> str | None:
    """What the cluster has decided about a Job whose pods have not all ended yet; None before that.

    From Kubernetes 1.31 on a Job is Failed or Complete only once the last of its pods is over, which on a
    node that is silent takes until the node is back or deleted.
    """
    if job_end(job):
        return None
    for condition in _true(job):
        if condition.get("type") == "SuccessCriteriaMet":
            return "has succeeded"
        if condition.get("type") == "FailureTarget":
            return f"has {_failed(condition)}"
    return None


def pod_end(pod: KubeObject) -> End | None:
    """How a pod failed, or None where it did not.

    Args:
        pod: with its status.

    Returns:
        The sentence names the first of these that there is: the user's mistake, a limit, the disruption, the
        node's reason, the container's exit code; and what it left behind as its last word.
    """
    disrupted = next((c for c in _true(pod) if c.get("type") == "DisruptionTarget"), None)
    beside = sidecars(pod)
    ended = [
        state["terminated"]
        for status in containers(pod)
        if "terminated" in (state := status.get("state") or {}) and status.get("name") not in beside
    ]
    failed = [end for end in map(container_end, ended) if not end.succeeded]
    is_done = phase(pod) == "Succeeded"  # also on a node that is drained meanwhile
    if is_done or (phase(pod) != "Failed" and not (disrupted or failed)):
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
        refused = message.startswith(REFUSED)  # another node may take the next one, or this one later
        detail = f": {message}" if message else ""
        code = cli.EXIT_PEER_LOST if refused or status["reason"] in LEFT else cli.EXIT_BUG
        verb = "did not take" if refused else "stopped"
        return End(False, f"its node {verb} it ({status['reason']}{detail})", code)
    return failed[0] if failed else End(False, "it failed, and its status does not say why", cli.EXIT_BUG)


def sidecars(pod: KubeObject) -> set[str]:
    """The containers that the cluster stops once the others have ended, whatever they then exit with.

    https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/
    """
    starters = (pod.get("spec") or {}).get("initContainers") or []
    return {str(each["name"]) for each in starters if each.get("restartPolicy") == "Always"}


def container_end(terminated: dict[str, Any]) -> End:
    """What a container's exit code means.

    Args:
        terminated: `state.terminated` of its status.

    Returns:
        Its end, with the code that `infra.submit` ends with for it.
    """
    code: int = terminated["exitCode"]
    said = str(terminated.get("message") or "").strip()
    last_word = f'; it said "{said.splitlines()[-1]}"' if said else ""
    if code == 0:
        return End(True, "exit code 0", cli.EXIT_OK)
    reason = terminated.get("reason")
    if reason in LOST:
        lost = f"exit code {code} (its node has lost it, as after a restart, or never started it: {reason})"
        return End(False, lost, cli.EXIT_PEER_LOST)
    if reason == NOT_STARTED:
        why = f': "{said.splitlines()[-1]}"' if said else ""
        verdict = cli.EXIT_USER if NO_PROGRAM.search(said) else cli.EXIT_BUG
        return End(False, f"exit code {code} (its node could not start it){why}", verdict)
    # The node's word stays where one process was killed, and the container went on and ended by itself.
    starved = reason == "OOMKilled"
    if starved and code not in EXIT_CODES:
        return End(False, "it took more memory than its limit and was killed (OOMKilled)", cli.EXIT_BUG)
    words, verdict = EXIT_CODES.get(code, (_signal(code), cli.EXIT_BUG))
    before = "; before that it took more memory than its limit (OOMKilled)" if starved else ""
    return End(False, f"exit code {code}{f' ({words})' if words else ''}{before}{last_word}", verdict)


def _failed(condition: dict[str, Any]) -> str:
    words = ": ".join(filter(None, (condition.get("reason"), condition.get("message"))))
    return f"failed ({words})" if words else "failed"


def _signal(code: int) -> str:
    try:
        return f"killed by {signal.Signals(code - 128).name}"
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
    return cli.EXIT_PEER_LOST if set(codes) == {cli.EXIT_PEER_LOST} else cli.EXIT_BUG


def standing(job: KubeObject, pods: Sequence[KubeObject]) -> str:
    """How a Job stands, in a few words: `1 of 2 pods done, 1 running`.

    Args:
        job: with its status.
        pods: its pods.
    """
    status = job.get("status") or {}
    wanted = (job.get("spec") or {}).get("completions")  # none of a work queue: its pods say when all is done
    phases = [phase(pod) for pod in pods]
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
    return phase(pod) in ("Succeeded", "Failed")


def phase(pod: KubeObject) -> str:
    """Kubernetes' word for how far a pod has come."""
    return str((pod.get("status") or {}).get("phase", "Pending"))


def conditions(item: KubeObject) -> list[dict[str, Any]]:
    """Those of a pod's or a Job's status."""
    return list((item.get("status") or {}).get("conditions") or [])


def _true(item: KubeObject) -> list[dict[str, Any]]:
    """The conditions that hold: one that is "False" may be left of an eviction that did not come about."""
    return [condition for condition in conditions(item) if condition.get("status") == "True"]


def containers(pod: KubeObject) -> list[dict[str, Any]]:
    """The statuses of a pod's containers, of those that start it first."""
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
