"""Who the workers are: the Indexed Job's environment, or one machine, to TF_CONFIG.

Promises: pure functions of what they are given, but for two about this machine: it is asked for what workers
need of it, and for ports that are free.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from canopy import children
from canopy.cli import UserError
from canopy.contract import RUN_ID

DEFAULT_PORT, HIGHEST_PORT = 2222, 65535
# Of a training process at least, besides what all share: with the smallest network, and an image a step, one
# comes to 442 MiB, to 280 before it begins.
WORKER_BYTES = 400 << 20
# Of a launcher for one: its line, its last word, its stderr, and a socket while free ports are looked for.
WORKER_FILES = 4


@dataclass(frozen=True)
class Place:
    """A worker's place in the cluster."""

    index: int  # of this worker, from 0; worker 0 is the chief
    addresses: tuple[str, ...]  # host:port of every worker, in order; empty where there is just this one
    by_name: bool = False  # the hosts are names: name servers may give a lost pod's IP address for a while
    run: str = ""  # which run this is: another one's pod may have an IP address that was one of ours

    @property
    def workers(self) -> int:
        """How many workers there are."""
        return max(1, len(self.addresses))

    @property
    def is_chief(self) -> bool:
        """Whether this worker writes checkpoints, logs and the export."""
        return self.index == 0

    def tf_config(self) -> str:
        """TF_CONFIG as TensorFlow reads it; empty for a single worker, which needs no cluster and no port."""
        if self.workers == 1:
            return ""
        task = {"type": "worker", "index": self.index}
        return json.dumps({"cluster": {"worker": self.addresses}, "task": task})


def from_tf_config(environment: Mapping[str, str]) -> Place:
    """Reads TF_CONFIG; without it this is the only worker.

    Args:
        environment: in which TF_CONFIG may be.

    Raises:
        UserError: where TF_CONFIG cannot be understood.
    """
    text = environment.get("TF_CONFIG", "")
    if not text:
        return Place(0, ())
    try:
        found = json.loads(text)
        addresses = tuple(str(address) for address in found["cluster"]["worker"])
        index = int(found["task"]["index"])
        if not 0 <= index < len(addresses):
            raise ValueError(f"index {index} with {len(addresses)} workers")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"TF_CONFIG cannot be understood ({error!r})") from error
    return Place(index, addresses)


def from_indexed_job(environment: Mapping[str, str]) -> Place:
    """Reads what a pod of a Kubernetes Indexed Job is given.

    Args:
        environment: JOB_COMPLETION_INDEX (set by Kubernetes), HOSTNAME (`JOB-INDEX`, likewise),
            CANOPY_WORKERS (how many pods), CANOPY_SERVICE (the headless Service, the pods' `subdomain`),
            CANOPY_PORT (2222 where it is not set) and CANOPY_RUN_ID (the Job's uid, where it is set: pods of
            another run are then not met). CANOPY_ADDRESSES (`host:port,host:port`, one a worker in order)
            stands for all but the first where the pods have other names.

    Raises:
        UserError: where one of them is missing or does not fit the others.
    """
    try:
        index = int(environment["JOB_COMPLETION_INDEX"])
        if environment.get("CANOPY_ADDRESSES"):
            return _from_addresses(environment["CANOPY_ADDRESSES"], index)
        workers = int(environment["CANOPY_WORKERS"])
        service, port = environment["CANOPY_SERVICE"], int(environment.get("CANOPY_PORT", DEFAULT_PORT))
        job = environment["HOSTNAME"].removesuffix(f"-{index}")
    except KeyError as error:
        raise UserError(
            f"the environment variable {error.args[0]} is not set: in a pod of an Indexed Job it is needed, "
            "elsewhere give --local_workers"
        ) from error
    except ValueError as error:
        raise UserError(
            f"JOB_COMPLETION_INDEX, CANOPY_WORKERS and CANOPY_PORT must be numbers ({error})"
        ) from error
    if not 0 < port <= HIGHEST_PORT:
        raise UserError(f"CANOPY_PORT must be a number from 1 to {HIGHEST_PORT}, and is {port}")
    if not 0 <= index < workers:
        raise UserError(
            f"JOB_COMPLETION_INDEX is {index} but CANOPY_WORKERS is {workers}: completions, parallelism "
            "and CANOPY_WORKERS must be the same number"
        )
    addresses = tuple(f"{job}-{i}.{service}:{port}" for i in range(workers))
    return Place(index, addresses, by_name=True, run=environment.get(RUN_ID, ""))


def _from_addresses(text: str, index: int) -> Place:
    addresses = tuple(address.strip() for address in text.split(","))
    found = [re.fullmatch(r".+:(\d{1,5})", address) for address in addresses]
    if not all(match and 0 < int(match[1]) <= HIGHEST_PORT for match in found):
        raise UserError(f"CANOPY_ADDRESSES must be host:port,host:port and so on, and is {text!r}")
    if not 0 <= index < len(addresses):
        raise UserError(
            f"JOB_COMPLETION_INDEX is {index} but CANOPY_ADDRESSES names {len(addresses)} workers: "
            "completions, parallelism and the addresses must be the same number"
        )
    return Place(index, addresses)


def split(address: str) -> tuple[str, int]:
    """Host and port of `host:port`, an IPv6 address without its brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def join(host: str, port: int) -> str:
    """The reverse of `split`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_room(workers: int) -> None:
    """Refuses more workers on this machine than its memory holds, or its limit of open files allows.

    Raises:
        UserError: there is no room for as many as `--local_workers` says.
    """
    children.check_memory("--local_workers", workers, WORKER_BYTES)
    children.check_files("--local_workers", workers, WORKER_FILES)


def on_this_machine(workers: int) -> list[Place]:
    """Places for `workers` processes on this machine, at ports that are free now."""
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(workers))
    return [Place(index, addresses) for index in range(workers)]


def free_ports(count: int) -> list[int]:
    """Ports on the loopback address that nobody listens on; all are held until all are found."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
