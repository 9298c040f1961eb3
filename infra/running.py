"""Applies manifests in order and follows their Jobs: what `infra.submit` does once its flags are read.

Promises: an object is changed only by server-side apply, so that what others have set stays theirs; a Job
that is there already is followed, not started twice, and its ConfigMap is left as it is, since a pod that
replaces one of the Job's would read other settings than the rest; only --replace and --delete take anything
away.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Iterable, Sequence

from canopy import cli
from canopy.cli import UserError
from canopy.phrases import named
from infra import connection, endings, manifests, refusals
from infra.cluster_api import Cluster, RefusedError, UnreachableError
from infra.following import Follower, UnfinishedError
from infra.manifests import KubeObject, Manifest, is_job, title
from infra.screen import Screen
from infra.settings import Settings

COUNTS = ("completions", "parallelism")
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
DELETED_SECONDS = 180.0  # for a Job's pods to end within their grace period, and the Job after them


def run(files: Sequence[Manifest], settings: Settings) -> int:
    """Does what the flags ask for.

    Args:
        files: the manifests, in order.
        settings: the flags.

    Returns:
        The exit code, the reason for which has been told.

    Raises:
        UserError: no cluster, or one that refuses.
    """
    try:
        cluster = _connect(settings)
        manifests.in_namespace(files, cluster.namespace)
        with Screen() as screen:
            if settings.delete:
                _delete(cluster, screen, files, settings.delete_claims)
            else:
                _submit(cluster, screen, files, settings)
    except RefusedError as refused:
        raise UserError(refusals.sentence(refused, "asking the cluster")) from None
    except UnreachableError as error:
        print(f"error: the cluster does not answer any more: {error}", file=sys.stderr, flush=True)
        return cli.EXIT_PEER_LOST
    except UnfinishedError as unfinished:
        print(f"error: {unfinished}", file=sys.stderr, flush=True)
        return unfinished.code
    return cli.EXIT_OK


def _connect(settings: Settings) -> Cluster:
    try:
        return connection.connect(settings.context, settings.namespace)
    except UnreachableError as error:
        raise UserError(f"the cluster cannot be reached: {error} (is it the right --context?)") from None


def _submit(cluster: Cluster, screen: Screen, files: Iterable[Manifest], settings: Settings) -> None:
    summary = []
    try:
        for manifest in files:
            for job in _apply(cluster, screen, manifest, settings):
                end = endings.job_end(job)
                if end is not None and end.succeeded:
                    summary.append(f"{title(job)} had succeeded already")
                    continue
                seconds = _follow(cluster, screen, job, settings)
                summary.append(f"{title(job)} succeeded ({seconds:,.0f} s)")
    except KeyboardInterrupt:
        screen.note(
            f"what was started in namespace {cluster.namespace} goes on; the same command follows it again, "
            "and --delete takes it away"
        )
        raise
    for line in summary:
        screen.log(line)


def _follow(cluster: Cluster, screen: Screen, job: KubeObject, settings: Settings) -> float:
    try:
        return Follower(cluster, screen, settings).wait(job)
    except RefusedError as refused:
        why = refusals.sentence(refused, f"following {title(job)}")
        raise UserError(f"{why}; the Job goes on, and the same command follows it again") from None


def _apply(cluster: Cluster, screen: Screen, manifest: Manifest, settings: Settings) -> list[KubeObject]:
    """Applies a file's objects and returns its Jobs, as the cluster has them."""
    for job in manifest.jobs:
        _make_way(cluster, screen, job, manifest, settings)
    jobs: list[KubeObject] = []
    for item in manifest.objects:
        before = cluster.get(item)
        after = _apply_one(cluster, _as_admitted(item, before), manifest.path, settings)
        if is_job(item):
            jobs.append(after)
        screen.note(f"{manifest.path}: {title(item)} {_verb(before, after)}")
    return jobs


def _make_way(
    cluster: Cluster, screen: Screen, job: KubeObject, manifest: Manifest, settings: Settings
) -> None:
    """Takes an earlier Job of that name away where that is asked for; else makes sure that it is this one."""
    there = cluster.get(job)
    if there is None:
        return
    # Before the Job goes: what the cluster will not take in its place is refused here.
    found = [_difference(cluster, item, manifest.path, settings) for item in manifest.objects]
    differences = [each for each in found if each]
    if settings.replace or "deletionTimestamp" in there["metadata"]:
        screen.note(f"{title(job)} is taken away first")
        _delete_one(cluster, job)
    elif differences:
        raise UserError(refusals.differs(job, manifest.path, endings.job_end(there), differences))


def _difference(cluster: Cluster, item: KubeObject, path: str, settings: Settings) -> str:
    """In what a file's ConfigMap or Job differs from the cluster's; empty where it does not.

    A field that may be changed in a Job, such as its deadline, is no difference; the number of an Indexed
    Job's pods is one, though Kubernetes lets it be changed: they were told how many they are.

    Raises:
        UserError: the cluster would not take the object.
    """
    there = cluster.get(item)
    try:
        # Who has set a Job's fields does not matter here, only whether they can be changed.
        force = settings.force_conflicts or is_job(item)
        after = cluster.apply(_as_admitted(item, there), force, only_try=True)
    except RefusedError as refused:
        if is_job(item) and refusals.immutable(refused):  # --replace takes nothing else away
            return f"{title(item)}: {refusals.fields(refused)}"
        raise _refused(refused, item, path) from None
    if there is None:
        return ""
    if is_job(item):
        indexed = after["spec"].get("completionMode") == "Indexed"
        keys = [key for key in COUNTS if indexed and after["spec"].get(key) != there["spec"].get(key)]
        return f"{title(item)}: {', '.join(f'spec.{key}' for key in keys)}" if keys else ""
    if item["kind"] != "ConfigMap":
        return ""
    old, new = ({**(each.get("data") or {}), **(each.get("binaryData") or {})} for each in (there, after))
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return f"{title(item)}: {', '.join(keys)}" if keys else ""


def _as_admitted(item: KubeObject, there: KubeObject | None) -> KubeObject:
    """A Job whose tolerations and node labels are those of the file and what its queue has added to them.

    Kueue adds a flavor's to the Job that it admits, and takes them away where it suspends it again.
    Server-side apply would set both fields as a whole.
    """
    if there is None or not is_job(item) or QUEUE_LABEL not in (there["metadata"].get("labels") or {}):
        return item
    if there["spec"].get("suspend"):  # it has its file's own, which Kubernetes lets be changed
        return item
    item = copy.deepcopy(item)
    own, admitted = (each["spec"]["template"]["spec"] for each in (item, there))
    tolerations, labels = admitted.get("tolerations", []), admitted.get("nodeSelector", {})
    if "tolerations" in own and all(each in tolerations for each in own["tolerations"]):
        own["tolerations"] = tolerations
    if "nodeSelector" in own and own["nodeSelector"].items() <= labels.items():
        own["nodeSelector"] = labels
    return item


def _apply_one(cluster: Cluster, item: KubeObject, path: str, settings: Settings) -> KubeObject:
    try:
        return cluster.apply(item, settings.force_conflicts)
    except RefusedError as refused:
        raise _refused(refused, item, path) from None


def _refused(refused: RefusedError, item: KubeObject, path: str) -> UserError:
    return UserError(refusals.sentence(refused, f"applying {title(item)} of {path}"))


def _verb(before: KubeObject | None, after: KubeObject) -> str:
    """What has become of an object, after its name in a sentence."""
    if before is None:
        return "created"
    end = endings.job_end(after) if is_job(after) else None
    if end is not None:
        return f"is there already, and {end.sentence}: --replace runs it again"
    if before["metadata"].get("resourceVersion") != after["metadata"].get("resourceVersion"):
        return "changed"
    return "is there already, unchanged" if is_job(after) else "unchanged"


def _delete(cluster: Cluster, screen: Screen, files: Sequence[Manifest], claims: bool) -> None:
    for manifest in reversed(files):
        for item in reversed(manifest.objects):
            if item["kind"] == "PersistentVolumeClaim" and not claims:
                screen.note(f"{title(item)} stays, and the data with it: --delete_claims takes it away")
                continue
            was_there = _delete_one(cluster, item)
            screen.log(f"{title(item)} {'is deleted' if was_there else 'was not there'}")


def _delete_one(cluster: Cluster, item: KubeObject) -> bool:
    """Deletes an object and, where it is a Job, waits until its pods are gone; tells whether it was there."""
    was_there = cluster.delete(item)
    deadline = time.monotonic() + DELETED_SECONDS
    while is_job(item) and (there := cluster.get(item)) is not None:
        if time.monotonic() > deadline:
            lasts = f"{title(item)} is still being deleted after {DELETED_SECONDS:.0f} s"
            raise UserError(f"{lasts}: {_holds(cluster, there)}")
        time.sleep(0.5)
    return was_there


def _holds(cluster: Cluster, job: KubeObject) -> str:
    """What keeps a Job that is being deleted."""
    pods = cluster.pods(job)
    if pods:
        told = [f"{pod['metadata']['name']} ({pod['spec'].get('nodeName', 'no node')})" for pod in pods]
        return f"not gone yet: {named(told)}; a pod stays as long as its node is lost"
    name = job["metadata"]["name"]
    return (
        "its pods are gone, and something else holds it, as an admission webhook does that does not answer: "
        f"kubectl get job {name} -o yaml shows its finalizers"
    )
