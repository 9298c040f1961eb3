"""From an empty namespace to a submission, on a real cluster that loses pods meanwhile.

Run it as `CANOPY_CLUSTER=CONTEXT python -m pytest tests/k8s/test_on_a_cluster.py`: CONTEXT is one of
kubectl's, its nodes hold the image canopy:0.1.0, and one node is enough (`docs/kubernetes.md` makes such a
cluster with kind). All is done in a namespace of its own, which enforces Pod Security `restricted` and goes
at the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from canopy import cli
from tests.conftest import ROOT
from tests.k8s.manifests import K8S, find_kubectl

CONTEXT = os.environ.get("CANOPY_CLUSTER", "")
SETTINGS = {
    "preprocess": {"SPLITS": "train=0.7,validation=0.3", "MAX_BAD_FRACTION": "0.1"},
    # Long enough to lose two pods amid steps, with a checkpoint at each of them.
    "train": {
        "IMAGE_SIZE": "96",
        "WEIGHTS": "none",
        "EPOCHS": "40",
        "BATCH_SIZE": "8",
        "CHECKPOINT_STEPS": "1",
    },
}
STAGES = ("preprocess", "train", "predict", "evaluate")
MINUTES = 20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CONTEXT, reason="CANOPY_CLUSTER names no context of kubectl's"),
]


class Namespace:
    """A namespace of the cluster, asked with kubectl."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._program = find_kubectl() or "kubectl"

    def kubectl(self, *words: str, given: bytes = b"") -> str:
        command = [self._program, "--context", CONTEXT, "--namespace", self.name, *words]
        done = subprocess.run(command, capture_output=True, timeout=600, check=False, input=given)
        assert done.returncode == 0, (words, done.stderr.decode())
        return done.stdout.decode()

    def pod(self, worker: int, besides: str = "") -> dict[str, Any] | None:
        """A worker's pod, of another name than `besides`; None before there is one."""
        labels = f"app.kubernetes.io/instance=canopy-train,batch.kubernetes.io/job-completion-index={worker}"
        items = json.loads(self.kubectl("get", "pods", "-l", labels, "-o", "json"))["items"]
        return next((each for each in items if each["metadata"]["name"] != besides), None)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl so far."""
        show = "cat /data/model/metrics.jsonl 2> /dev/null || true"
        text = self.kubectl("exec", "canopy-archive", "--", "sh", "-c", show)
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def steps(self, after: int = -1) -> int | None:
        """How many steps have been logged, None where they are no more than `after`."""
        step = max((line["step"] for line in self.metrics()), default=-1)
        return step if step > after else None


@pytest.fixture(scope="module")
def namespace(archive: Path) -> Iterator[Namespace]:
    """One that is empty but for the claim, the archive upon it and the pod that copied it there."""
    made = Namespace(f"canopy-test-{uuid.uuid4().hex[:8]}")
    made.kubectl("create", "namespace", made.name)
    try:
        made.kubectl("label", "namespace", made.name, "pod-security.kubernetes.io/enforce=restricted")
        for file in ("storage-single-node.yaml", "archive-pod.yaml"):
            made.kubectl("apply", "-f", str(K8S / file))
        made.kubectl("wait", "--for=condition=ready", "--timeout=5m", "pod/canopy-archive")
        packed = subprocess.run(
            ["tar", "-cf", "-", "-C", archive.parent, archive.name], capture_output=True, check=True
        )
        unpack = ("tar", "-xf", "-", "-C", "/data", "--no-same-owner")
        made.kubectl("exec", "-i", "canopy-archive", "--", *unpack, given=packed.stdout)
        yield made
    finally:
        made.kubectl("delete", "namespace", made.name, "--wait=false")


@pytest.fixture(scope="module")
def followed(
    namespace: Namespace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[subprocess.Popen[str]]:
    """`infra.submit`, which applies and follows every stage with a small run's settings."""
    overlay = tmp_path_factory.mktemp("overlay")
    patches = [
        {
            "target": {"kind": "ConfigMap", "name": f"canopy-{stage}"},
            "patch": yaml.safe_dump(
                [{"op": "replace", "path": f"/data/{key}", "value": value} for key, value in found.items()]
            ),
        }
        for stage, found in SETTINGS.items()
    ]
    base = os.path.relpath(ROOT / "infra" / "overlays" / "cpu", overlay.resolve())
    document = {"sortOptions": {"order": "fifo"}, "resources": [base], "patches": patches}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(document))
    files = [K8S / f"{stage}-job.yaml" for stage in STAGES]
    where = ("--context", CONTEXT, "--namespace", namespace.name)
    process = subprocess.Popen(
        [sys.executable, "-m", "infra.submit", *files, "--overlay", overlay, "--follow", *where],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    with process:
        yield process
        process.kill()


def wait(what: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    """What `what` comes to, once it comes to anything."""
    until = time.monotonic() + 60 * MINUTES
    while not (found := what()):
        assert time.monotonic() < until, "it took too long"
        assert process.poll() is None, process.communicate()[0]
        time.sleep(1)
    return found


def test_a_run_that_loses_pods_ends_in_a_submission_and_a_report(
    namespace: Namespace, followed: subprocess.Popen[str]
) -> None:
    step = wait(namespace.steps, followed)
    for worker in (1, 0):  # a worker, then the chief
        lost = wait(partial(namespace.pod, worker), followed)["metadata"]["name"]
        namespace.kubectl("delete", "pod", lost, "--wait=false")
        wait(partial(namespace.pod, worker, besides=lost), followed)
        for _ in range(2):  # those of before the pod was gone may be logged after its replacement came
            step = wait(partial(namespace.steps, after=step), followed)

    output, _ = followed.communicate(timeout=60 * MINUTES)
    assert followed.returncode == cli.EXIT_OK, output
    for stage in STAGES:
        assert f"job/canopy-{stage} succeeded" in output
    assert "resuming after step" in output

    taken = [line["step"] for line in namespace.metrics() if "loss" in line]
    assert taken == sorted(set(taken))  # told to end, every pod left a checkpoint: no step was taken twice
    submission = namespace.kubectl("exec", "canopy-archive", "--", "cat", "/data/submission.csv").splitlines()
    assert submission[0] == "image_name,tags"
    assert len(submission) == 1 + 12
    assert all(line.partition(",")[2] for line in submission)
    report = namespace.kubectl("exec", "canopy-archive", "--", "head", "-c", "15", "/data/report/report.html")
    assert report.lower() == "<!doctype html>"
