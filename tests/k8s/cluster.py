"""A cluster on this machine: pods of the manifests as local processes, or as containers of an image.

As processes, /data and /tmp are folders here; as containers, all but the network is the manifest's. Either
way pods find each other at addresses of this machine, and settings are changed in the ConfigMaps as a user
would.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT
from tests.k8s import containers
from tests.k8s.manifests import Object, command_of, file_of, objects, of_kind, template, the
from trainer import cluster


@dataclass
class Pod:
    """A local process in the place of a pod, or its container."""

    process: subprocess.Popen[str]
    scratch: Path  # its /tmp
    log: Path
    word: Path  # its /dev/termination-log
    container: str = ""  # its name, where it is one

    @property
    def is_ready(self) -> bool:
        return (self.scratch / "canopy-ready").exists()

    def end(self, seconds: float = 180) -> int:
        return self.process.wait(seconds)

    def kill(self) -> None:
        """Ends it, where it still runs."""
        if self.container:
            subprocess.run(["runc", "delete", "--force", self.container], capture_output=True, check=False)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def said(self) -> str:
        """Why it ended, in its own words."""
        return self.word.read_text() if self.word.exists() else ""


class Cluster:
    """Starts pods of manifests on this machine."""

    def __init__(self, folder: Path, in_containers: bool = False) -> None:
        """Starts nothing yet.

        Args:
            folder: for its claim and its pods' folders.
            in_containers: whether pods are containers of the image that CANOPY_IMAGE names.
        """
        self.data = folder / "data"
        self.data.mkdir()
        self.pods: list[Pod] = []
        self.port = 0  # of the pod that was started last
        self._folder, self._in_containers = folder, in_containers

    def apply(self, stage: str, settings: dict[str, str], workers: int = 1, uid: str = "") -> list[Pod]:
        """Starts a stage's pods, with some of its settings changed; with a uid, those of another Job."""
        found = changed(objects(file_of(stage)), f"canopy-{stage}", settings)
        (workload,) = of_kind(found, "Job", "Deployment")
        workload["metadata"] |= {"uid": uid} if uid else {}
        ports = cluster.free_ports(workers)
        pods = [self._start(found, workload, index, ports) for index in range(workers)]
        self.pods += pods
        return pods

    def _start(self, found: list[Object], workload: Object, index: int, ports: list[int]) -> Pod:
        command = command_of(found, workload, index)
        name = f"canopy-test-{len(self.pods)}-{index}-{time.monotonic_ns()}"
        folder = self._folder / name
        scratch, word, log = folder / "tmp", folder / "termination-log", folder / "log"
        scratch.mkdir(parents=True)
        places = {"/data": self.data, "/tmp": scratch, "/dev/termination-log": word}
        if workload["spec"].get("completionMode") == "Indexed":
            command.environment["CANOPY_ADDRESSES"] = ",".join(f"127.0.0.1:{port}" for port in ports)
        # Two threads a process, of which several share a core here.
        command.environment["OMP_NUM_THREADS"] = "1"
        self.port = ports[0]
        command.words[:] = [each.replace("--port=6006", f"--port={ports[0]}") for each in command.words]
        assert command.words[0] == "python"
        environment = dict(os.environ)
        if self._in_containers:
            pod = template(workload)
            word.touch()
            word.chmod(0o666)
            for volume in (self.data, scratch):
                containers.open_to_the_group(volume, pod)
            containers.bundle(folder / "bundle", pod, command, places)
            words = ["runc", "run", "--bundle", str(folder / "bundle"), name]
        else:
            words = [sys.executable, *(localized(each, places) for each in command.words[1:])]
            # Nothing of the tests' own environment but where programs are.
            environment = {k: localized(value, places) for k, value in command.environment.items()}
            environment["PATH"] = os.environ["PATH"]
        with log.open("w") as file:
            process = subprocess.Popen(
                words, env=environment, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, text=True
            )
        return Pod(process, scratch, log, word, name if self._in_containers else "")

    def delete(self) -> None:
        """Ends what still runs."""
        for pod in self.pods:
            pod.kill()


def changed(found: list[Object], name: str, settings: dict[str, str]) -> list[Object]:
    """The objects with values of a ConfigMap changed; a setting that is not there is an error."""
    found = copy.deepcopy(found)
    data = the(found, "ConfigMap", name)["data"]
    assert settings.keys() <= data.keys()
    data.update(settings)
    return found


def localized(text: str, places: dict[str, Path]) -> str:
    """A path of a pod as one of this machine, also behind a flag's equals sign."""
    flag, equals, value = text.rpartition("=") if text.startswith("--") else ("", "", text)
    for inside, outside in places.items():
        if value == inside or value.startswith(inside + "/"):
            return f"{flag}{equals}{outside}{value[len(inside) :]}"
    return text
