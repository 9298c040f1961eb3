"""The cluster's API, as far as `infra.submit` needs it: the official client behind a few plain methods.

Promises: objects go in and come out as plain dicts; what a cluster refuses is a `RefusedError` with the
cluster's own words, and one that does not answer, or with what is no API's answer, an `UnreachableError`.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import watch as typeless_watch
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ResourceNotFoundError, ResourceNotUniqueError

from canopy.cli import UserError
from infra.manifests import JOB_UID_LABEL, KubeObject, is_job, title

FIELD_MANAGER = "canopy"
AGAIN = (429, 500, 502, 503, 504)
READ_SECONDS = 60.0  # a stream that is silent for longer is asked for anew: its connection may be dead
CONNECT_SECONDS = 10.0
NOWHERE = (404, 410)
NO_JSON = "it answers with what is no JSON, as a proxy or a login page does"
# Mistakes that the API server answers with 500, as its own: apimachinery's structuredMergeManager.Apply.
MALFORMED = ("failed to create typed patch object", "failed to convert new object")
STAMPED = re.compile(r"\d{4}-\d\d-\d\dT\S+ ")  # the kubelet's own words among a log's lines are not
_watch: Any = typeless_watch  # most of the client carries no types


class RefusedError(Exception):
    """The cluster said no."""

    def __init__(self, status: int, message: str, fields: tuple[str, ...]) -> None:
        """Keeps the answer.

        Args:
            status: HTTP's.
            message: the API server's sentence.
            fields: those at fault, where it names them.
        """
        super().__init__(message)
        self.status, self.message, self.fields = status, message, fields


class UnreachableError(Exception):
    """The cluster does not answer, after several tries, or something else answers in its place."""


class Cluster:
    """One namespace of one cluster."""

    def __init__(self, api_client: Any, namespace: str) -> None:
        """Asks the cluster what kinds it has.

        Args:
            api_client: the official client's, configured.
            namespace: where everything happens.

        Raises:
            RefusedError, UnreachableError: as every method below.
        """
        self.namespace = namespace
        self._resources: dict[tuple[str, str], Any] = {}
        untyped: Any = DynamicClient
        with tempfile.TemporaryDirectory() as folder, _translated():
            # The client's own cache is a file under /tmp that anybody may have put there.
            self._client = untyped(api_client, cache_file=str(Path(folder, "discovery.json")))

    def get(self, item: KubeObject) -> KubeObject | None:
        """The cluster's version of an object, or None where it has none."""
        try:
            found: KubeObject = self._call(self._resource(item).get, name=item["metadata"]["name"])
            return found
        except RefusedError as refused:
            if refused.status == 404:
                return None
            raise

    def apply(self, item: KubeObject, force_conflicts: bool, only_try: bool = False) -> KubeObject:
        """Creates or changes an object, server-side.

        Args:
            item: the object, whole.
            force_conflicts: whether fields that somebody else has set are taken over.
            only_try: whether the cluster only says what would come of it.

        Returns:
            The object as the cluster has it now, or would have it.
        """
        applied: KubeObject = self._call(
            self._resource(item).server_side_apply,
            body=dict(item),
            field_manager=FIELD_MANAGER,
            force_conflicts=force_conflicts,
            **({"dry_run": "All"} if only_try else {}),
        )
        return applied

    def delete(self, item: KubeObject) -> bool:
        """Deletes an object; a Job goes when its pods are gone.

        Returns:
            Whether it was there.
        """
        policy = "Foreground" if is_job(item) else "Background"
        try:
            self._call(self._resource(item).delete, name=item["metadata"]["name"], propagation_policy=policy)
        except RefusedError as refused:
            if refused.status == 404:
                return False
            raise
        return True

    def pods(self, job: KubeObject) -> list[KubeObject]:
        """A Job's pods, those that ended included, and none of an earlier Job of its name."""
        found = self._call(self._core("Pod").get, label_selector=f"{JOB_UID_LABEL}={job['metadata']['uid']}")
        return list(found.get("items") or [])

    def events(self, item: KubeObject) -> list[KubeObject]:
        """What the cluster's parts said about an object, oldest first; nothing where it cannot be had."""
        try:
            found = self._call(
                self._core("Event").get,
                field_selector=f"involvedObject.uid={item['metadata']['uid']}",
            )
        except (RefusedError, UnreachableError):
            return []
        return sorted(
            found.get("items") or [],
            key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime")),
        )

    def job_changes(self, job: KubeObject, seconds: int) -> Iterator[KubeObject | None]:
        """Follows a Job.

        Args:
            job: the Job, as last seen.
            seconds: how long to watch.

        Yields:
            Each new version of it, None when it is deleted. Ends after `seconds`, or when the version last
            seen is too old to watch from: then read the Job anew.
        """
        metadata = job["metadata"]
        resource = self._resource({"apiVersion": "batch/v1", "kind": "Job"})
        stream = _watch.Watch().stream(
            resource.get,
            namespace=self.namespace,
            field_selector=f"metadata.name={metadata['name']}",
            resource_version=metadata["resourceVersion"],
            timeout_seconds=seconds,
            serialize=False,
            _request_timeout=(CONNECT_SECONDS, seconds + READ_SECONDS),
        )
        try:
            with _translated():
                for event in stream:
                    if event is None:  # a line that is no JSON: the next call finds out what answers
                        return
                    yield None if event["type"] == "DELETED" else event["raw_object"]
        except RefusedError as refused:
            if refused.status not in NOWHERE:
                raise
        except UnreachableError:
            return  # the next call finds out whether the cluster is still there

    def log(
        self,
        pod: str,
        container: str,
        *,
        since: str | None = None,
        follow: bool = False,
        tail: int | None = None,
        over: bool = False,
    ) -> Iterator[str]:
        """A container's log, each line with its time in front.

        Args:
            pod: its pod's name.
            container: its name.
            since: RFC 3339; lines before that second are left out. None: all lines.
            follow: whether to wait for more until the container ends.
            tail: only so many of the last lines; None: all.
            over: whether the container has ended: then what follows the last line's end is a line, too, and
                before that the first part of one.

        Yields:
            Lines without their ends.
        """
        query = [("container", container), ("timestamps", "true"), ("follow", str(follow).lower())]
        if since is not None:
            query.append(("sinceTime", since))
        if tail is not None:
            query.append(("tailLines", str(tail)))
        with _translated():
            response = self._client.request(
                "get",
                f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log",
                query_params=query,
                header_params={"Accept": "*/*"},
                serialize=False,
                _request_timeout=(CONNECT_SECONDS, READ_SECONDS),
            )
            try:
                if "html" in response.headers.get("Content-Type", ""):
                    raise UnreachableError("it answers with a page, as a proxy or a login does")
                yield from _lines(response.stream(amt=None, decode_content=False), over)
            finally:
                response.close()
                response.release_conn()

    def _core(self, kind: str) -> Any:
        return self._resource({"apiVersion": "v1", "kind": kind})

    def _resource(self, item: KubeObject) -> Any:
        version, kind = item["apiVersion"], item["kind"]
        # Without a prefix every group with a v1 is asked, and one whose server is down each time anew.
        prefix = "apis" if "/" in version else "api"
        try:
            if (version, kind) not in self._resources:
                with _translated():
                    found = self._client.resources.get(prefix=prefix, api_version=version, kind=kind)
                self._resources[version, kind] = found
            return self._resources[version, kind]
        except (ResourceNotFoundError, ResourceNotUniqueError):
            raise UserError(
                f"the cluster does not know {item['kind']} of {item['apiVersion']}"
                + (f" ({title(item)})" if "metadata" in item else "")
                + ": is the part that defines it installed?"
            ) from None

    def _call(self, method: Callable[..., Any], **arguments: Any) -> Any:
        with _translated():
            answer = method(
                namespace=self.namespace,
                serializer=lambda _, answer: answer,
                _request_timeout=(CONNECT_SECONDS, READ_SECONDS),
                **arguments,
            )
        if isinstance(answer, str):
            raise UnreachableError(NO_JSON)
        return answer


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turns the client's and urllib3's exceptions into this module's."""
    try:
        yield
    except ApiException as error:
        refusal = _refusal(error)
        passing = error.status in AGAIN and not refusal.message.startswith(MALFORMED)
        raise (UnreachableError(refusal.message) if passing else refusal) from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise UnreachableError(str(reason)) from None
    except ValueError as error:
        # What the client's discovery makes of a connection cut off, where the cluster's address is no https://.
        if not isinstance(error.__context__, urllib3.exceptions.HTTPError):
            raise
        raise UnreachableError(str(getattr(error.__context__, "reason", None) or error)) from None
    except AttributeError as error:
        # The client hands on as text what is no JSON, and its discovery then looks for fields of it.
        if not isinstance(error.obj, str):
            raise
        raise UnreachableError(NO_JSON) from None


def _lines(chunks: Iterable[bytes], over: bool) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
    last = rest.decode(errors="replace")
    if over and STAMPED.match(last):
        yield last


def _refusal(error: ApiException) -> RefusedError:
    body = error.body or ""
    try:
        answer = json.loads(body)
    except (TypeError, ValueError):
        answer = {}
    if not isinstance(answer, dict):
        answer = {}
    message = answer.get("message") or error.reason or f"HTTP status {error.status}"
    causes = (answer.get("details") or {}).get("causes") or []
    fields = tuple(str(cause["field"]) for cause in causes if cause.get("field"))
    return RefusedError(int(error.status or 0), str(message), fields)
