"""Runs that something happens to: started as users and pods do, watched from outside."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, SMALLEST
from trainer import cluster

PATIENCE_SECONDS = 420.0  # for what takes seconds on a machine that has nothing else to do


def wait_for(condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """Waits until `condition` is true, and returns what it then is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


class Run:
    """A run: launchers, their training processes, what they leave in model_dir."""

    def __init__(self, records: Path, model_dir: Path, *flags: object) -> None:
        self.model_dir = model_dir
        model_dir.mkdir(parents=True, exist_ok=True)
        self._task = ["--data", records, "--model_dir", model_dir, *SMALLEST, "--log_steps", 1, *flags]
        self.launchers: list[subprocess.Popen[bytes]] = []
        self._addresses: list[str] = []
        self._machines: list[str] = []

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        for launcher in self.launchers:
            for pid in (launcher.pid, *children(launcher.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            launcher.wait()

    def locally(self, workers: int, *own: object, **environment: str) -> subprocess.Popen[bytes]:
        """Starts a launcher of `workers` workers on this machine."""
        return self._start(["--local_workers", workers, *own], environment)

    def pods(self, workers: int, *own: object, **environment: str) -> None:
        """Starts a launcher for each of `workers` pods of an Indexed Job."""
        self._addresses = [f"127.0.0.1:{port}" for port in cluster.free_ports(workers)]
        self.launchers = []
        for index in range(workers):
            self.pod(index, *own, **environment)

    def pods_on(self, network: Network, workers: int = 2) -> None:
        """Starts pods, each on a machine of its own, that find each other by name."""
        self._machines, self.launchers = network.machines[:workers], []
        for index in range(len(network.machines)):
            network.name(index, range(workers))
        for index in range(workers):
            self.pod(index)

    def pod_elsewhere(self, index: int, network: Network, machine: int) -> None:
        """Starts a pod on another machine in place of a lost one; its new address is known there alone."""
        where = [network.machines.index(each) for each in self._machines]
        where[index] = machine
        network.name(machine, where)
        self._machines[index] = network.machines[machine]
        self.pod(index)

    def pod(self, index: int, *own: object, **environment: str) -> subprocess.Popen[bytes]:
        """Starts one pod's launcher, as the Job's controller does, also in place of one that is gone."""
        variables = {"JOB_COMPLETION_INDEX": str(index), "CANOPY_ADDRESSES": ",".join(self._addresses)}
        if self._machines:
            variables |= {"HOSTNAME": f"train-{index}", "CANOPY_SERVICE": "pods"}
            variables |= {"CANOPY_WORKERS": str(len(self._machines)), "CANOPY_PORT": "2222"}
        machine = ["ip", "netns", "exec", self._machines[index]] if self._machines else []
        launcher = self._start(own, variables | environment, machine)
        if index < len(self.launchers) - 1:
            self.launchers[index] = self.launchers.pop()
        return launcher

    def _start(
        self, own: Any, environment: dict[str, str], machine: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        words = [*machine, sys.executable, "-m", "trainer.launch", *own, "--", *self._task]
        number = len(list(self.model_dir.glob("log-*")))
        with (self.model_dir / f"log-{number}").open("wb") as log:
            launcher = subprocess.Popen(
                [str(word) for word in words],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
            )
        self.launchers.append(launcher)
        return launcher

    def told(self) -> str:
        """All that the launchers and workers have said."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.model_dir.glob("log-*")))

    def lines(self) -> list[dict[str, Any]]:
        """The journal's lines of steps, without those of validation."""
        path = self.model_dir / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        found = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
        return [line for line in found if "loss" in line]

    def steps(self) -> list[int]:
        """The steps that were completed, in the order in which they were."""
        return [line["step"] for line in self.lines()]

    def wait_for_step(self, step: int) -> None:
        wait_for(lambda: max(self.steps(), default=0) >= step)

    def workers(self, launcher: int = 0) -> list[int]:
        """The training processes of a launcher, in the order in which they were started."""
        return children(self.launchers[launcher].pid)

    def starts(self) -> int:
        """How often the chief's training process has formed a cluster."""
        return self.told().count(", global batch ")

    def seconds_to_next_step(self, fault: Callable[[], Any]) -> float:
        """Does `fault`, and returns the seconds until the first step of the start that follows it."""
        before, began = self.starts(), time.monotonic()
        fault()
        wait_for(lambda: self.starts() > before)
        count = len(self.steps())
        wait_for(lambda: len(self.steps()) > count)
        seconds = time.monotonic() - began
        print(f"{seconds:.1f} s from the fault to the next completed step")
        return seconds

    def ends(self) -> list[int]:
        """Waits for all launchers and returns their exit codes."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        return [launcher.wait(max(1.0, deadline - time.monotonic())) for launcher in self.launchers]


class Network:
    """Machines of a network that can be cut: network namespaces on a bridge, which only root may make."""

    def __init__(self, count: int) -> None:
        """Makes nothing yet.

        Args:
            count: of machines.
        """
        self._name = f"canopy{os.getpid()}"
        self.machines = [f"{self._name}-{i}" for i in range(count)]
        self.addresses = [f"10.231.77.{i + 1}" for i in range(count)]

    def __enter__(self) -> Network:
        switch = self._name
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for index, (machine, address) in enumerate(zip(self.machines, self.addresses, strict=True)):
            port = f"port{index}"
            _ip("netns", "add", machine)
            _ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", machine)
            _ip("-n", switch, "link", "set", port, "master", "bridge", "up")
            _ip("-n", machine, "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", machine, "link", "set", device, "up")
        return self

    def __exit__(self, *_: object) -> None:
        for namespace in (*self.machines, self._name):
            _ip("netns", "delete", namespace)
            shutil.rmtree(Path("/etc/netns", namespace), ignore_errors=True)

    def name(self, machine: int, pods: Sequence[int]) -> None:
        """Sets which names one machine's programs find, and where.

        Args:
            machine: whose programs.
            pods: the machine of each pod, by the pod's index.
        """
        hosts = Path("/etc/netns", self.machines[machine], "hosts")
        hosts.parent.mkdir(parents=True, exist_ok=True)
        names = [f"{self.addresses[where]} train-{pod}.pods\n" for pod, where in enumerate(pods)]
        hosts.write_text("".join(names))

    def cut(self, index: int) -> None:
        """Pulls a machine's plug: what is sent to it is lost without a word."""
        _ip("-n", self._name, "link", "set", f"port{index}", "down")

    def mend(self, index: int) -> None:
        """Puts it back."""
        _ip("-n", self._name, "link", "set", f"port{index}", "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def children(pid: int) -> list[int]:
    """The training processes that a process has started."""
    # macOS' ps has no --ppid, and takes `pid=,args=` for one column with a heading.
    words = ["ps", "-A", "-ww", "-o", "pid=", "-o", "ppid=", "-o", "args="]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    rows = [line.split(maxsplit=2) for line in found.stdout.splitlines()]
    return sorted(int(own) for own, parent, line in rows if int(parent) == pid and "trainer.task" in line)


def is_running(pid: int) -> bool:
    """Whether a process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def kill(run: Run, launcher: int, worker: int = 0, how: signal.Signals = signal.SIGKILL) -> None:
    """Sends a signal to a worker that a launcher has started."""
    os.kill(run.workers(launcher)[worker], how)


def checkpoints(run: Run) -> list[str]:
    """The names of the files saved, oldest first."""
    return sorted(path.name for path in (run.model_dir / "checkpoints").glob("step-*.npz"))


def last_saved(run: Run) -> int:
    """The step of the newest checkpoint."""
    return int(checkpoints(run)[-1].removeprefix("step-").removesuffix(".npz"))


def repeated(run: Run) -> int:
    """How many steps were taken more than once."""
    steps = run.steps()
    return len(steps) - len(set(steps))


def files(folder: Path) -> dict[Path, bytes]:
    """What a folder holds, by path."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
