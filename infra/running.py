"""Applies manifests in order and follows their Jobs: what `infra.submit` does once its flags are read.

Promises: an object is changed only by server-side apply, so that what others have set stays theirs; a Job
that is there already is followed, not started twice; only --replace and --delete take anything away.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence

from canopy import cli
from canopy.cli import UserError
from infra import cluster_api, diagnosis, manifests, refusals
from infra.cluster_api import Cluster, RefusedError, UnreachableError
from infra.following import Follower, Patience, UnfinishedError
from infra.manifests import KubeObject, Manifest, is_job, title
from infra.screen import Screen
from infra.settings import Settings

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
        return cluster_api.connect(settings.context, settings.namespace)
    except UnreachableError as error:
        raise UserError(f"the cluster cannot be reached: {error} (is it the right --context?)") from None


def _submit(cluster: Cluster, screen: Screen, files: Iterable[Manifest], settings: Settings) -> None:
    summary = []
    try:
        for manifest in files:
            for job in _apply(cluster, screen, manifest, settings):
                if _succeeded(job):
                    summary.append(f"{title(job)} had succeeded already")
                    continue
                patience = Patience(settings.timeout, settings.patience)
                seconds = Follower(cluster, screen, patience, settings.follow).wait(job)
                summary.append(f"{title(job)} succeeded ({seconds:,.0f} s)")
    except KeyboardInterrupt:
        screen.note(
            f"what was started in namespace {cluster.namespace} goes on; the same command follows it again, "
            "and --delete takes it away"
        )
        raise
    for line in summary:
        screen.log(line)


def _apply(cluster: Cluster, screen: Screen, manifest: Manifest, settings: Settings) -> list[KubeObject]:
    """Applies a file's objects and returns its Jobs, as the cluster has them."""
    jobs: list[KubeObject] = []
    changed: list[str] = []
    for item in manifest.objects:
        before = cluster.get(item)
        if before is not None and is_job(item) and (settings.replace or _leaving(before)):
            screen.note(f"{title(item)} is taken away first")
            _delete_one(cluster, item)
            before = None
        after = _apply_one(cluster, item, manifest.path, settings.force_conflicts)
        verb = _verb(before, after)
        if is_job(item):
            jobs.append(after)
            verb = _job_verb(verb, after, changed)
        elif verb == "changed":
            changed.append(title(item))
        screen.note(f"{manifest.path}: {title(item)} {verb}")
    return jobs


def _apply_one(cluster: Cluster, item: KubeObject, path: str, force_conflicts: bool) -> KubeObject:
    try:
        return cluster.apply(item, force_conflicts)
    except RefusedError as refused:
        if refusals.immutable(refused) and is_job(item):
            raise UserError(refusals.differs(item, path)) from None
        raise UserError(refusals.sentence(refused, f"applying {title(item)} of {path}")) from None


def _job_verb(verb: str, job: KubeObject, changed: Sequence[str]) -> str:
    end = diagnosis.job_end(job)
    if end is not None:
        return f"is there already, and {end.sentence}: --replace runs it again"
    if verb == "unchanged" and changed:
        others = " and ".join(changed)
        return f"is there already, and runs with what {others} held before: --replace starts it anew"
    return "is there already, unchanged" if verb == "unchanged" else verb


def _succeeded(job: KubeObject) -> bool:
    end = diagnosis.job_end(job)
    return end is not None and end.succeeded


def _verb(before: KubeObject | None, after: KubeObject) -> str:
    if before is None:
        return "created"
    same = before["metadata"].get("resourceVersion") == after["metadata"].get("resourceVersion")
    return "unchanged" if same else "changed"


def _leaving(item: KubeObject) -> bool:
    return "deletionTimestamp" in item["metadata"]


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
    while is_job(item) and cluster.get(item) is not None:
        if time.monotonic() > deadline:
            raise UserError(
                f"{title(item)} is still being deleted after {DELETED_SECONDS:.0f} s: a pod of it may be "
                "on a node that is lost; kubectl get pods tells which"
            )
        time.sleep(0.5)
    return was_there
