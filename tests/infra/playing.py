"""A Job's life, played on the test API server: what controllers, a scheduler and kubelets would write."""

import itertools
import threading
import time

from infra.backoff import COUNTING, FAILURES
from tests.infra.store import now

NUMBERS = itertools.count()


class Stage:
    """One Job, for a script to play on. Its methods write statuses as the cluster's parts do."""

    def __init__(self, server, job):
        self.server, self.store = server, server.store
        self.job, self.labels = job["metadata"]["name"], job["spec"]["template"]["metadata"]["labels"]
        self.indexed = job["spec"].get("completionMode") == "Indexed"
        self.template = job["spec"]["template"]
        self.uid = job["metadata"]["uid"]

    def pod(self, index=0, failures=0):
        """Creates a pending pod, that of an index after so many that failed, and returns its name."""
        name = (
            f"{self.job}-{index}-{next(NUMBERS):05d}" if self.indexed else f"{self.job}-{next(NUMBERS):05d}"
        )
        labels = dict(self.labels)
        if self.indexed:
            labels["batch.kubernetes.io/job-completion-index"] = str(index)
        self.store.put(
            "pods",
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "labels": labels,
                    "annotations": {FAILURES: str(failures)},
                    "finalizers": [COUNTING],
                },
                "spec": self.template["spec"],
                "status": {"phase": "Pending", "conditions": []},
            },
        )
        self.server.logs[name] = []
        return name

    def condition(self, pod, **condition):
        self._status(pod, lambda status: status["conditions"].append({"status": "True", **condition}))

    def waiting(self, pod, reason, message=""):
        state = {"waiting": {"reason": reason, "message": message}}
        self._status(pod, lambda status: status.update(containerStatuses=[self._container(state)]))

    def run(self, pod):
        state = {"running": {"startedAt": now()}}
        self._status(
            pod, lambda status: status.update(phase="Running", containerStatuses=[self._container(state)])
        )

    def say(self, pod, *lines, stamp=None):
        """Adds lines to a pod's log; several may get one and the same time."""
        second = time.time()
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        at = stamp or f"{text}.{int(second % 1 * 1e9):09d}Z"
        self.server.logs[pod] += [(at, line) for line in lines]

    def end(self, pod, code=0, reason=None, message=""):
        state = {
            "terminated": {
                "exitCode": code,
                "reason": reason or ("Error" if code else "Completed"),
                "finishedAt": now(),
            }
        }
        if message:
            state["terminated"]["message"] = message
        phase = "Failed" if code else "Succeeded"
        self._status(
            pod, lambda status: status.update(phase=phase, containerStatuses=[self._container(state)])
        )

    def lose(self, pod):
        """The pod is gone, as after a forced deletion."""
        self.store.delete("pods", pod)

    def event(self, kind, name, reason, message):
        about = {"jobs": self.uid} if kind == "jobs" else {}
        uid = about.get(kind) or self.store.get(kind, name)["metadata"]["uid"]
        self.store.put(
            "events",
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"{name}.{next(NUMBERS)}"},
                "involvedObject": {"uid": uid, "name": name},
                "type": "Warning",
                "reason": reason,
                "message": message,
                "lastTimestamp": now(),
            },
        )

    def complete(self):
        self._finish("Complete", "CompletionsReached", "")

    def fail(self, reason="BackoffLimitExceeded", message="Job has reached the specified backoff limit"):
        self._finish("Failed", reason, message)

    def touch(self):
        """The Job's status changes, as it does whenever a pod's does."""
        self.store.change("jobs", self.job, lambda job: job.setdefault("status", {}).update(active=1))

    def _finish(self, kind, reason, message):
        def change(job):
            status = job.setdefault("status", {})
            status["succeeded"] = job["spec"].get("completions", 1) if kind == "Complete" else 0
            status["conditions"] = [{"type": kind, "status": "True", "reason": reason, "message": message}]

        self.store.change("jobs", self.job, change)

    def _status(self, pod, how):
        self.store.change("pods", pod, lambda item: how(item["status"]))

    def _container(self, state):
        return {"name": "canopy", "image": self.template["spec"]["containers"][0]["image"], "state": state}


def play(server, **scripts):
    """Plays a script a Job, by the Job's name with _ for -, from the moment that it is created.

    A Job without a script runs one pod that says its name and succeeds.
    """

    def start(job):
        script = scripts.get(job["metadata"]["name"].replace("-", "_"), succeed)
        threading.Thread(target=script, args=(Stage(server, job),), daemon=True).start()

    def sweep():
        # Foreground deletion: the object goes once its dependents are gone.
        while not server.closing.is_set():
            for job in server.store.list("jobs"):
                if "deletionTimestamp" in job["metadata"]:
                    for pod in server.store.list("pods"):
                        labels = pod["metadata"]["labels"]
                        if labels["batch.kubernetes.io/job-name"] == job["metadata"]["name"]:
                            server.store.delete("pods", pod["metadata"]["name"])
                    server.store.delete("jobs", job["metadata"]["name"])
            time.sleep(0.05)

    server.on_created["jobs"] = start
    threading.Thread(target=sweep, daemon=True).start()


def succeed(stage):
    pod = stage.pod()
    stage.run(pod)
    stage.touch()
    stage.say(pod, f"{stage.job} at work")
    stage.end(pod)
    stage.complete()


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
