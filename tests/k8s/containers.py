"""A pod's container as a kubelet would have a runtime start it: its specification as a bundle for runc.

User, capabilities, seccomp profile, read-only root, mounts and memory limit are the manifest's. The network
is this machine's: NetworkPolicies and the pods' own names are not shown here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.k8s.manifests import Command, Object, quantity

PROFILE = Path("/usr/share/containers/seccomp.json")  # what runtimes take for RuntimeDefault
KINDS = ("bounding", "effective", "inheritable", "permitted", "ambient")
# As every runtime mounts them: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md
SYSTEM = [
    ("/proc", "proc", ["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
    ("/dev/mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
    ("/dev/shm", "tmpfs", ["nosuid", "nodev", "mode=1777", "size=64m"]),
    ("/sys", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
]


def missing() -> str:
    """What this machine lacks for containers, empty where it lacks nothing."""
    if not image().is_dir():
        return "CANOPY_IMAGE names no folder that an image has been unpacked into"
    if os.geteuid() != 0 or not shutil.which("runc"):
        return "containers are started by root, with runc"
    return "" if PROFILE.exists() else f"there is no {PROFILE}"


def image() -> Path:
    """The image's root file system."""
    return Path(os.environ.get("CANOPY_IMAGE", "/none"))


def bundle(folder: Path, pod: Object, command: Command, places: dict[str, Path]) -> None:
    """Writes what `runc run --bundle` takes.

    Args:
        folder: of the bundle.
        pod: with its spec.
        command: of the pod's container.
        places: files and folders here, by the path at which the container sees them.
    """
    spec = pod["spec"]
    (container,) = spec["containers"]
    context, own = spec["securityContext"], container["securityContext"]
    environment = _of_the_image() | command.environment
    config = {
        "ociVersion": "1.0.0",
        "hostname": environment.get("HOSTNAME", "canopy"),
        "root": {"path": str(image()), "readonly": own["readOnlyRootFilesystem"]},
        "process": {
            "user": {
                "uid": context["runAsUser"],
                "gid": context["runAsGroup"],
                "additionalGids": [context["fsGroup"]],
            },
            "args": command.words,
            "env": [f"{name}={value}" for name, value in environment.items()],
            "cwd": "/tmp",
            "noNewPrivileges": not own["allowPrivilegeEscalation"],
            "capabilities": {kind: [] for kind in KINDS} if own["capabilities"]["drop"] == ["ALL"] else None,
        },
        "mounts": [*_system(), *_volumes(spec, container, places)],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
            "resources": {"memory": {"limit": int(quantity(container["resources"]["limits"]["memory"]))}},
            "seccomp": _profile() if context["seccompProfile"]["type"] == "RuntimeDefault" else None,
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
        },
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config, indent=1))


def open_to_the_group(folder: Path, pod: Object) -> None:
    """Does to a volume what fsGroup asks for."""
    group = pod["spec"]["securityContext"]["fsGroup"]
    for path in (folder, *folder.rglob("*")):
        os.chown(path, -1, group)
        path.chmod(path.stat().st_mode | (0o2070 if path.is_dir() else 0o060))


def _system() -> list[dict[str, Any]]:
    return [
        {"destination": where, "type": kind, "source": kind, "options": options}
        for where, kind, options in SYSTEM
    ]


def _volumes(spec: Object, container: Object, places: dict[str, Path]) -> list[dict[str, Any]]:
    """The manifest's mounts; what is kept in memory has its limit there."""
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = []
    for mount in container["volumeMounts"]:
        where, volume = mount["mountPath"], volumes[mount["name"]]
        if volume.get("emptyDir", {}).get("medium") == "Memory":
            options = [
                "nosuid",
                "nodev",
                "mode=1777",
                f"size={quantity(volume['emptyDir']['sizeLimit']):.0f}",
            ]
            mounts.append({"destination": where, "type": "tmpfs", "source": "tmpfs", "options": options})
        else:
            mounts.append(_bind(places[where], where, "ro" if mount.get("readOnly") else "rw"))
    # A kubelet writes the pod's own; unpacked, an image has none, and nothing would answer to localhost.
    hosts = _bind(Path("/etc/hosts"), "/etc/hosts", "ro")
    return [*mounts, hosts, _bind(places["/dev/termination-log"], "/dev/termination-log", "rw")]


def _bind(here: Path, where: str, access: str) -> dict[str, Any]:
    return {
        "destination": where,
        "type": "bind",
        "source": str(here),
        "options": ["rbind", "rprivate", access],
    }


def _of_the_image() -> dict[str, str]:
    """The environment that infra/Dockerfile gives the CPU image; unpacked, an image has lost it."""
    text = (ROOT / "infra" / "Dockerfile").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^ENV (PATH=.*)$", text, re.MULTILINE)
    system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    pairs = (word.split("=", 1) for word in line.split())
    return {name: value.replace("$PATH", system) for name, value in pairs}


def _profile() -> dict[str, Any]:
    """The default seccomp profile as it is for a container without capabilities on this architecture."""
    given = json.loads(PROFILE.read_text())
    rules = []
    for rule in given["syscalls"]:
        wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
        here = "amd64" in wanted.get("arches", ["amd64"]) and "amd64" not in unwanted.get("arches", [])
        if here and not wanted.get("caps"):
            rules.append({k: rule[k] for k in ("names", "action", "args", "errnoRet") if rule.get(k)})
    found = {"defaultAction": given["defaultAction"], "syscalls": rules}
    return found | {k: given[k] for k in ("defaultErrnoRet",) if k in given}
