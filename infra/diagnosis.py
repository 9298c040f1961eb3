"""Why a Job or a pod does not go on, in words: pure functions from the API's objects to sentences.

Promises: one sentence a trouble, naming what a person can do something about; the cluster's own message goes
with it; troubles that waiting does not mend are marked so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from infra import endings
from infra.manifests import KubeObject

# pkg/kubelet/images/types.go and kuberuntime/kuberuntime_container.go; k8s.io/cri-api/pkg/errors/errors.go.
PULLS = (
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
)
STARTS = (
    "CreateContainerConfigError",
    "PreCreateHookError",
    "CreateContainerError",
    "PreStartHookError",
    "RunContainerError",
)
UNSCHEDULED = ("Unschedulable", "SchedulingGated", "SchedulerError")
# The reasons of events that tell of a failure, and of those that tell that it is over.
NOT_CREATED, CREATED = ("FailedCreate",), ("SuccessfulCreate",)
NOT_MOUNTED, MOUNTED = (
    ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"),
    ("Pulling", "Pulled", "Created", "Started"),  # a node comes to these once volumes and network are there
)
# Of claims: pkg/controller/volume/events/event.go, and what provisioners outside Kubernetes add to it.
NO_VOLUME, VOLUME = ("FailedBinding", "VolumeMismatch", "ProvisioningFailed"), ("ProvisioningSucceeded",)
BEING_MADE = ("ExternalProvisioning", "Provisioning")

ClaimEvents = Callable[[str], Iterable[KubeObject]]  # those about a claim without a volume, oldest first


@dataclass(frozen=True)
class Trouble:
    """Why something does not go on."""

    what: str  # stays the same while the cluster's wording changes
    detail: str = ""  # the cluster's own words
    hopeless: bool = False  # whether waiting alone does not mend it

    def __str__(self) -> str:
        return f"{self.what}: {self.detail}" if self.detail else self.what


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


def pod_trouble(
    pod: KubeObject, events: Iterable[KubeObject], of_claim: ClaimEvents = lambda _: ()
) -> Trouble | None:
    """Why a pod does not run, or not where anybody sees it; None where it runs, ended, or simply starts.

    Args:
        pod: with its status.
        events: those about it, oldest first.
        of_claim: gives a claim's by its name, nothing of one that has a volume.
    """
    for status in endings.containers(pod):
        waiting = (status.get("state") or {}).get("waiting")
        found = _waiting(status, waiting) if waiting else None
        if found:
            return found
    if _is_cut_off(pod):
        node = pod["spec"].get("nodeName")
        return Trouble(
            f"its node {node} does not answer, and nobody takes its place before the node is back, deleted "
            "or tainted out-of-service"
        )
    if endings.phase(pod) != "Pending":
        return None
    scheduled = [each for each in endings.conditions(pod) if each.get("type") == "PodScheduled"]
    for condition in scheduled:
        if condition.get("reason") in UNSCHEDULED:
            return _unscheduled(pod, condition["reason"], str(condition.get("message", "")), of_claim)
    event = _lasting(events, NOT_MOUNTED, MOUNTED)
    if event is None:
        # The scheduler says nothing where it has chosen a node, and waits for a volume to be made there.
        return None if scheduled else _unbound(pod, of_claim)
    what = (
        "its network cannot be set up"
        if event["reason"] == "FailedCreatePodSandBox"
        else "a volume of it cannot be mounted"
    )
    message = str(event.get("message", ""))
    # Of an object; a new node's driver is not found either, before it has started there.
    return Trouble(what, message, hopeless='" not found' in message)


def _is_cut_off(pod: KubeObject) -> bool:
    """Whether the cluster has marked a pod unready because its node is silent.

    The kubelet lets a pod be ready with its containers, the gates of readiness aside; the node controller
    changes the pod's condition alone: pkg/controller/util/node/controller_utils.go, MarkPodsNotReady.
    """
    status = {each.get("type"): each.get("status") for each in endings.conditions(pod)}
    return (
        endings.phase(pod) == "Running"
        and not pod["spec"].get("readinessGates")
        and (status.get("ContainersReady"), status.get("Ready")) == ("True", "False")
    )


def _waiting(status: dict[str, Any], waiting: dict[str, Any]) -> Trouble | None:
    reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
    if reason in PULLS:
        return Trouble(f"the image {status.get('image')} cannot be pulled", message or reason, hopeless=True)
    if reason in STARTS:
        return Trouble("its container cannot be started", message or reason, hopeless=True)
    if reason == "CrashLoopBackOff":
        last = (status.get("lastState") or {}).get("terminated") or {}
        end = f", the last time with {endings.container_end(last).sentence}" if last else ""
        return Trouble(f"its container ends again and again{end}")
    return None


def _unbound(pod: KubeObject, of_claim: ClaimEvents) -> Trouble | None:
    """What keeps one of a pod's claims from having a volume, where anybody said so."""
    for claim in _claims(pod):
        events = list(of_claim(claim))
        for reasons, what in ((NO_VOLUME, "gets no volume"), (BEING_MADE, "is not bound to a volume yet")):
            if event := _lasting(events, reasons, VOLUME):
                message = str(event.get("message", ""))
                return Trouble(f"{claim} {what}", message, hopeless='" not found' in message)
    return None


def _unscheduled(pod: KubeObject, reason: str, message: str, of_claim: ClaimEvents) -> Trouble:
    if reason == "SchedulingGated":
        gates = ", ".join(gate["name"] for gate in pod["spec"].get("schedulingGates") or [])
        return Trouble(f"it is gated, and waits for whoever gated it (a queue, or a person): {gates}")
    missing = re.search(r'persistentvolumeclaim "([^"]+)" (not found|is being deleted)', message)
    if missing:
        return Trouble(f"its claim {missing[1]} is not there", message, hopeless=True)
    # The second: the scheduler has chosen a node, and waits for the claim's volume there.
    if "unbound immediate PersistentVolumeClaims" in message or "binding volumes" in message:
        if said := _unbound(pod, of_claim):
            return said
        claims = ", ".join(_claims(pod)) or "its claim"
        return Trouble(f"{claims} is not bound to a volume yet", message)
    if reason == "SchedulerError":
        return Trouble("the scheduler has failed on it, and tries again", message)
    short = tuple(dict.fromkeys(re.findall(r"Insufficient ([\w./-]+?)(?=[,.;]?(?:\s|$))", message)))
    return Trouble(_no_room(short, message), message)


def _no_room(short: tuple[str, ...], message: str) -> str:
    gpus = [resource for resource in short if "gpu" in resource]
    if gpus:
        return f"no node has a free GPU ({gpus[0]})"
    if short:
        return f"no node has enough {' and '.join(short)} free"
    words = (
        # Of devices that a driver hands out by claims; from 1.36 on they may stand behind nvidia.com/gpu.
        ("cannot allocate all claims", "no node has the devices free that it asks for"),
        # Said of the node, or the name of its taint.
        ("unschedulable", "a node that could take it is closed to new pods: cordoned, or being drained"),
        ("persistent volumes to bind", "no node that could take it has a volume for its claim"),
        ("olume node affinity", "no node that reaches its volume takes it"),
        ("olume's node affinity", "no node that reaches its volume takes it"),
        ("affinity", "no node has the labels that it asks for"),
        ("node selector", "no node has the labels that it asks for"),
        ("taint", "every node has a taint that it does not tolerate"),
    )
    return next((what for sign, what in words if sign in message), "no node takes it")


def _claims(pod: KubeObject) -> list[str]:
    volumes = (pod.get("spec") or {}).get("volumes") or []
    return [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]
