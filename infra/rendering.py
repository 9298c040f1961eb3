"""Takes manifests' objects as an overlay has them: `kubectl kustomize` renders it, once.

Promises: what a file names is what is applied, no more and no less: an overlay changes objects, a file says
which of them are a stage.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence

import yaml

from canopy.cli import UserError
from infra.manifests import KubeObject, Manifest, title


def through(files: Sequence[Manifest], overlay: str) -> tuple[Manifest, ...]:
    """The manifests with each object as the overlay renders it.

    Args:
        files: the manifests, as they stand.
        overlay: a folder with a kustomization.

    Raises:
        UserError: there is no kubectl, it cannot render the folder, or an object is none of the overlay's.
    """
    rendered = _rendered(overlay)
    return tuple(
        Manifest(each.path, tuple(_found(item, rendered, overlay, each.path) for item in each.objects))
        for each in files
    )


def _found(item: KubeObject, rendered: Iterable[KubeObject], overlay: str, path: str) -> KubeObject:
    """The overlay's version of an object; one that names no namespace may be given one."""
    namespace = item["metadata"].get("namespace")
    for other in rendered:
        if title(other) == title(item) and (not namespace or namespace == other["metadata"].get("namespace")):
            return other
    raise UserError(
        f"--overlay {overlay} has no {title(item)}, which {path} holds: name the file in its resources, or "
        "apply it by itself"
    )


def _rendered(overlay: str) -> list[KubeObject]:
    try:
        done = subprocess.run(["kubectl", "kustomize", overlay], capture_output=True, check=False)
    except FileNotFoundError:
        raise UserError("--overlay is rendered by kubectl, which is not in PATH") from None
    except OSError as error:
        raise UserError(f"--overlay is rendered by kubectl, which cannot be started: {error}") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").split()
        raise UserError(f"--overlay {overlay} cannot be rendered by kubectl kustomize: {' '.join(words)}")
    return [item for item in yaml.safe_load_all(done.stdout) if item]
