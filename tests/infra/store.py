"""Objects as an API server keeps them: versions, field ownership, server-side apply, deletion, history.

What is faithful: resource versions, conflicts between field managers, fields that go when their only owner no
longer names them, a Job's immutable fields and defaults, foreground deletion, a history that is compacted.
What is not: lists are atomic (the real server merges some by key), and defaults are the few that matter here.
"""

import copy
import itertools
import threading
import time
import uuid

# pkg/apis/batch/validation/validation.go: ValidateJobSpecUpdate, and validateCompletions for the last.
JOB_IMMUTABLE = (
    "template",
    "completionMode",
    "selector",
    "podFailurePolicy",
    "backoffLimitPerIndex",
    "completions",
)
LATER = itertools.count()


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class RefusalError(Exception):
    def __init__(self, status, reason, message, causes=()):
        super().__init__(message)
        self.status, self.reason, self.message, self.causes = status, reason, message, causes


class Store:
    def __init__(self):
        self.changed = threading.Condition(threading.RLock())
        self.version = 100
        self.objects = {}  # (resource, name) to object
        self.history = []  # (version, type, resource, object)
        self.oldest = 0  # versions before this one are compacted

    def get(self, resource, name):
        with self.changed:
            if (resource, name) not in self.objects:
                raise RefusalError(404, "NotFound", f'{resource} "{name}" not found')
            return copy.deepcopy(self.objects[resource, name])

    def list(self, resource):
        with self.changed:
            return [copy.deepcopy(item) for (kind, _), item in self.objects.items() if kind == resource]

    def put(self, resource, item):
        """Writes a whole object, as controllers do to a status."""
        with self.changed:
            name = item["metadata"]["name"]
            kind = "MODIFIED" if (resource, name) in self.objects else "ADDED"
            self.version += 1
            item = copy.deepcopy(item)
            item["metadata"].setdefault("uid", str(uuid.uuid4()))
            item["metadata"].setdefault("creationTimestamp", f"{now()[:-1]}.{next(LATER):06d}Z")
            item["metadata"]["resourceVersion"] = str(self.version)
            self.objects[resource, name] = item
            self.history.append((self.version, kind, resource, copy.deepcopy(item)))
            self.changed.notify_all()
            return copy.deepcopy(item)

    def change(self, resource, name, how):
        with self.changed:
            item = self.get(resource, name)
            how(item)
            return self.put(resource, item)

    def apply(self, resource, body, manager, force, only_try=False):
        """Server-side apply; returns (object, whether it was created). A try leaves all as it is."""
        with self.changed:
            name = body["metadata"]["name"]
            wanted = leaves(body)
            if (resource, name) not in self.objects:
                item = copy.deepcopy(body)
                item["metadata"]["managedFields"] = [owned(manager, wanted)]
                item = with_defaults(resource, item)
                return (item if only_try else self.put(resource, item)), True
            old = self.get(resource, name)
            entries = {entry["manager"]: entry for entry in old["metadata"].get("managedFields", [])}
            held = leaves(old)
            clashes = [
                (path, other)
                for other, entry in entries.items()
                for path in map(tuple, entry["fields"])
                if other != manager and path in wanted and held.get(path) != wanted[path]
            ]
            if clashes and not force:
                raise conflict(clashes)
            item = copy.deepcopy(old)
            for path in set(map(tuple, entries.get(manager, {"fields": []})["fields"])) - set(wanted):
                if not any(list(path) in e["fields"] for m, e in entries.items() if m != manager):
                    remove(item, path)
            for path, value in wanted.items():
                place(item, path, value)
            for path, other in clashes:
                entries[other]["fields"].remove(list(path))
            check_immutable(resource, old, item)
            entries[manager] = owned(manager, wanted)
            item["metadata"]["managedFields"] = list(entries.values())
            same = {**old["metadata"], "managedFields": 0} == {**item["metadata"], "managedFields": 0}
            if same and all(
                item.get(key) == old.get(key) for key in ("spec", "data", "binaryData", "status")
            ):
                return old, False
            return (item if only_try else self.put(resource, item)), False

    def delete(self, resource, name, foreground=False):
        with self.changed:
            item = self.get(resource, name)
            if foreground and "deletionTimestamp" not in item["metadata"]:
                item["metadata"] |= {"deletionTimestamp": now(), "finalizers": ["foregroundDeletion"]}
                return self.put(resource, item)
            del self.objects[resource, name]
            self.version += 1
            item["metadata"]["resourceVersion"] = str(self.version)
            self.history.append((self.version, "DELETED", resource, item))
            self.changed.notify_all()
            return item

    def compact(self):
        """Forgets the history, as etcd does every few minutes: older watches get 410."""
        with self.changed:
            self.version += 1
            self.oldest = self.version
            self.changed.notify_all()


def leaves(item, path=()):
    """The fields of an object, as paths; lists count as one field. Name and kind belong to nobody."""
    if isinstance(item, dict) and item and path[-1:] != ("nodeSelector",):
        found: dict[tuple[str, ...], object] = {}
        for key, value in item.items():
            found |= leaves(value, (*path, key))
        return found
    nobodys = (("apiVersion",), ("kind",))
    if path in nobodys or (path[:1] == ("metadata",) and path[1] not in ("labels", "annotations")):
        return {}
    return {path: item}


def place(item, path, value):
    for key in path[:-1]:
        item = item.setdefault(key, {})
    item[path[-1]] = copy.deepcopy(value)


def remove(item, path):
    for key in path[:-1]:
        item = item.get(key, {})
    item.pop(path[-1], None)


def owned(manager, fields):
    return {"manager": manager, "operation": "Apply", "fields": [list(path) for path in fields]}


def conflict(clashes):
    by = sorted({other for _, other in clashes})
    fields = sorted("." + ".".join(path) for path, _ in clashes)
    plural = "s" if len(clashes) > 1 else ""
    message = (
        f'Apply failed with {len(clashes)} conflict{plural}: conflict with "{by[0]}": {", ".join(fields)}'
    )
    causes = [
        {"reason": "FieldManagerConflict", "field": field, "message": f'conflict with "{by[0]}"'}
        for field in fields
    ]
    return RefusalError(409, "Conflict", message, causes)


def check_immutable(resource, old, new):
    if resource != "jobs":
        return
    spec, was = new["spec"], old["spec"]
    if was.get("suspend") and not old.get("status", {}).get("startTime"):  # of scheduling, all may be changed
        was = copy.deepcopy(was)
        for key in ("tolerations", "nodeSelector"):
            was["template"]["spec"].pop(key, None)
            if key in spec["template"]["spec"]:
                was["template"]["spec"][key] = spec["template"]["spec"][key]
    elastic = spec.get("completionMode") == "Indexed" and spec["completions"] == spec["parallelism"]
    for key in JOB_IMMUTABLE[:-1] if elastic else JOB_IMMUTABLE:
        if was.get(key) != spec.get(key):
            name = old["metadata"]["name"]
            message = f'Job.batch "{name}" is invalid: spec.{key}: Invalid value: {{}}: field is immutable'
            raise RefusalError(
                422, "Invalid", message, [{"field": f"spec.{key}", "message": "field is immutable"}]
            )


def with_defaults(resource, item):
    if resource != "jobs":
        return item
    uid = str(uuid.uuid4())
    item["metadata"]["uid"] = uid
    spec = item["spec"]
    if "parallelism" not in spec:  # with it alone a Job is a work queue, and has no completions
        spec.setdefault("completions", 1)
    for key, value in (("parallelism", 1), ("backoffLimit", 6), ("suspend", False)):
        spec.setdefault(key, value)
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    pod = spec["template"]
    labels = pod.setdefault("metadata", {}).setdefault("labels", {})
    labels |= {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": item["metadata"]["name"],
    }
    pod["spec"].setdefault("dnsPolicy", "ClusterFirst")
    return item
