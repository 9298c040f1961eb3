"""One request to a Kubernetes API server: the paths that `infra.submit` asks for, and their answers.

It is authorised against a Role, and what it applies is validated against Kubernetes' own schemas.
"""

import json
import time
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml

from tests.infra.store import RefusalError

VALIDATED = "1.36"
KINDS = {
    "v1": {
        "configmaps": "ConfigMap",
        "events": "Event",
        "persistentvolumeclaims": "PersistentVolumeClaim",
        "pods": "Pod",
        "serviceaccounts": "ServiceAccount",
        "services": "Service",
    },
    "batch/v1": {"jobs": "Job"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
}
TOKEN = "letmein"
PAGE = b"<html>\nlog in\n</html>\n"


class Request:
    def __init__(self, server, http, method):
        self.server, self.http, self.method, self.store = server, http, method, server.store
        url = urlsplit(http.path)
        self.parts = [part for part in url.path.split("/") if part]
        self.query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        self.body = http.rfile.read(int(http.headers.get("Content-Length") or 0))

    def answer(self):
        try:
            if self.server.pages:
                self.server.pages -= 1
                return self._send(self.server.page, "text/html", self.server.page_status)
            self._authenticate()
            self._dispatch()
        except RefusalError as refusal:
            details = {"causes": list(refusal.causes)}
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": refusal.reason}
            status |= {"message": refusal.message, "code": refusal.status, "details": details}
            self._json(status, refusal.status, {"Retry-After": "0"} if refusal.status == 429 else {})
        except (BrokenPipeError, ConnectionResetError):
            self.http.close_connection = True

    def _authenticate(self):
        given = self.http.headers.get("Authorization")
        if given is None and len(self.parts) >= 4:  # whoever is nobody may ask what there is, by default
            message = f'{self.parts[-1]} is forbidden: User "system:anonymous" cannot get resource'
            raise RefusalError(403, "Forbidden", message)
        if given is not None and given != f"Bearer {TOKEN}":
            raise RefusalError(401, "Unauthorized", "Unauthorized")

    def _dispatch(self):
        if len(self.parts) < 4:
            return self._discover()
        prefix = 2 if self.parts[0] == "api" else 3
        self.group_version = "/".join(self.parts[1:prefix])
        _, namespace, self.resource, *rest = self.parts[prefix:]
        self.name, self.subresource = [*rest, None, None][:2]
        verb = self._verb()
        self._authorise(verb)
        if namespace != self.server.namespace:
            raise RefusalError(404, "NotFound", f'namespaces "{namespace}" not found')
        if (asked := self.subresource or verb) in self.server.paged:
            self.server.paged.remove(asked)
            return self._send(PAGE, "text/html")
        for waiting in list(self.server.refusals):
            if waiting[0] == verb and waiting[1] in ("*", self.resource):
                self.server.refusals.remove(waiting)
                raise waiting[2]
        return {
            "get": self._log if self.subresource == "log" else self._get,
            "list": self._list,
            "watch": self._watch,
            "patch": self._apply,
            "delete": self._delete,
        }[verb]()

    def _verb(self):
        if self.method == "GET":
            return "watch" if self.query.get("watch") in ("true", "True") else "get" if self.name else "list"
        return self.method.lower()

    def _authorise(self, verb):
        group = self.group_version.rpartition("/")[0]
        resource = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        self.server.asked.add((verb, group, resource))
        if self.server.rules is None:
            return
        for rule in self.server.rules:
            if group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"]:
                return
        raise RefusalError(
            403,
            "Forbidden",
            f'{resource} is forbidden: User "someone" cannot {verb} resource "{resource}" in API group '
            f'"{group}" in the namespace "{self.server.namespace}"',
        )

    def _discover(self):
        path = "/".join(self.parts)
        if path == "version":
            return self._json({"major": "1", "minor": "36", "gitVersion": "v1.36.0"})
        if path == "apis":
            versions = [key for key in [*KINDS, *self.server.broken_groups] if "/" in key]
            groups = [
                {"name": key.split("/")[0], "versions": [v], "preferredVersion": v}
                for key in versions
                for v in [{"groupVersion": key, "version": key.split("/")[1]}]
            ]
            return self._json({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        if "/".join(self.parts[1:]) in self.server.broken_groups:
            self.server.broken_asked += 1
            raise RefusalError(
                503, "ServiceUnavailable", "the server is currently unable to handle the request"
            )
        kinds = KINDS.get("/".join(self.parts[1:]))
        if kinds is None:
            raise RefusalError(404, "NotFound", "the server could not find the requested resource")
        resources = [
            {"name": name, "singularName": kind.lower(), "kind": kind, "namespaced": True, "verbs": ["get"]}
            for name, kind in kinds.items()
        ]
        return self._json({"kind": "APIResourceList", "apiVersion": "v1", "resources": resources})

    def _get(self):
        self._json(self.store.get(self.resource, self.name))

    def _list(self):
        with self.store.changed:
            items = [item for item in self.store.list(self.resource) if self._selected(item)]
            metadata = {"resourceVersion": str(self.store.version)}
        kind = KINDS[self.group_version][self.resource]
        self._json({"kind": f"{kind}List", "apiVersion": "v1", "metadata": metadata, "items": items})

    def _selected(self, item):
        for wanted in filter(None, self.query.get("labelSelector", "").split(",")):
            key, value = wanted.split("=")
            if (item["metadata"].get("labels") or {}).get(key) != value:
                return False
        for wanted in filter(None, self.query.get("fieldSelector", "").split(",")):
            key, value = wanted.split("=")
            found = item
            for part in key.split("."):
                found = (found or {}).get(part)
            if found != value:
                return False
        return True

    def _apply(self):
        if self.http.headers.get("Content-Type") != "application/apply-patch+yaml":
            raise RefusalError(
                415, "UnsupportedMediaType", "the body of the request was in an unknown format"
            )
        manager = self.query.get("fieldManager")
        if not manager:
            raise RefusalError(400, "BadRequest", "fieldManager is required for apply patch")
        body = yaml.safe_load(self.body)
        try:
            kubernetes_validate.validate(body, VALIDATED, strict=True)
        except kubernetes_validate.ValidationError as error:
            path, words = ["", *map(str, error.path)], error.message
            if error.validator == "additionalProperties":
                path += [key for key in error.instance if key not in error.schema["properties"]][:1]
                words = "field not declared in schema"
            kind = f"{self.group_version}, Kind={body['kind']}"
            raise RefusalError(
                500,
                "",
                f"failed to create typed patch object ({self.server.namespace}/{self.name}; {kind}): "
                f"{'.'.join(path)}: {words}",
            ) from None
        if not any(key == (self.resource, self.name) for key in self.store.objects):
            self._authorise("create")
        force = self.query.get("force", "").lower() == "true"
        only_try = self.query.get("dryRun") == "All"
        item, created = self.store.apply(self.resource, body, manager, force, only_try)
        self._json(item, 201 if created else 200)
        if created and not only_try and self.resource in self.server.on_created:
            self.server.on_created[self.resource](item)

    def _delete(self):
        policy = self.query.get("propagationPolicy") or json.loads(self.body or b"{}").get(
            "propagationPolicy"
        )
        self._json(self.store.delete(self.resource, self.name, foreground=policy == "Foreground"))

    def _watch(self):
        since = int(self.query["resourceVersion"])
        deadline = time.monotonic() + float(self.query.get("timeoutSeconds", 300))
        gone = {"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410}
        gone["message"] = f"too old resource version: {since} ({self.store.oldest})"
        if self.server.watch_gone:
            self.server.watch_gone -= 1
            raise RefusalError(410, "Expired", gone["message"])
        self._start_stream()
        while time.monotonic() < deadline and not self.server.closing.is_set():
            with self.store.changed:
                if since < self.store.oldest:
                    self._chunk(json.dumps({"type": "ERROR", "object": gone}) + "\n")
                    break
                news = [entry for entry in self.store.history if entry[0] > since]
                if not news:
                    self.store.changed.wait(0.2)
            for version, kind, resource, item in news:
                since = version
                if resource == self.resource and self._selected(item):
                    self._chunk(json.dumps({"type": kind, "object": item}) + "\n")
        self._chunk("")

    def _log(self):
        pod, query = self.store.get("pods", self.name), self.query
        self.server.log_reads.append((self.name, dict(query)))
        states = [s["state"] for s in pod["status"].get("containerStatuses", [])]
        if not any("running" in state or "terminated" in state for state in states):
            message = f'container "{query["container"]}" in pod "{self.name}" is waiting to start'
            raise RefusalError(400, "BadRequest", message)
        second = query.get("sinceTime", "")[:19]
        shown = sent = 0
        cut = self.server.cut_logs_after.pop(0) if self.server.cut_logs_after else None
        if "tailLines" in query:
            shown = max(0, len(self.server.logs.get(self.name, [])) - int(query["tailLines"]))
        self._start_stream("text/plain")
        while not self.server.closing.is_set():
            over = query.get("follow") != "true" or self._container_over()
            for stamp, line in self.server.logs.get(self.name, [])[shown:]:
                shown += 1
                if stamp[:19] < second:
                    continue
                if sent == cut:
                    self.http.connection.close()  # no last chunk: the stream is broken off
                    self.http.close_connection = True
                    return
                self._chunk(f"{stamp} {line}\n")
                sent += 1
            if over:
                break
            time.sleep(0.02)
        if self.server.log_rest:
            self._chunk(self.server.log_rest)
        self._chunk("")

    def _container_over(self):
        try:
            statuses = self.store.get("pods", self.name)["status"].get("containerStatuses", [])
        except RefusalError:
            return True
        return all("terminated" in status["state"] for status in statuses)

    def _json(self, answer, status=200, headers=()):
        self._send(json.dumps(answer).encode(), "application/json", status, headers)

    def _send(self, text, kind, status=200, headers=()):
        self.http.send_response(status)
        for key, value in {"Content-Type": kind, **dict(headers)}.items():
            self.http.send_header(key, value)
        self.http.send_header("Content-Length", str(len(text)))
        self.http.end_headers()
        self.http.wfile.write(text)

    def _start_stream(self, kind="application/json"):
        self.http.send_response(200)
        self.http.send_header("Content-Type", kind)
        self.http.send_header("Transfer-Encoding", "chunked")
        self.http.end_headers()

    def _chunk(self, text):
        data = text.encode()
        self.http.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.http.wfile.flush()
