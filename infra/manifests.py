"""Reads manifest files into Kubernetes objects, and finds what a cluster would only find later.

Promises: each file's objects in their order, a `List` taken apart; a file that cannot be read, is no YAML
or holds something other than objects is refused, naming file and place, before anything is applied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from canopy.cli import UserError

KubeObject = Mapping[str, Any]  # one Kubernetes object, as its YAML or JSON has it

JOB_UID_LABEL = "batch.kubernetes.io/controller-uid"
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


@dataclass(frozen=True)
class Manifest:
    """One file's objects."""

    path: str  # as given on the command line
    objects: tuple[KubeObject, ...]  # in the file's order

    @property
    def jobs(self) -> tuple[KubeObject, ...]:
        """The file's Jobs, which can be waited for."""
        return tuple(item for item in self.objects if is_job(item))


def is_job(item: KubeObject) -> bool:
    """Whether an object is a Job of Kubernetes itself."""
    return item["kind"] == "Job" and str(item["apiVersion"]).startswith("batch/")


def title(item: KubeObject) -> str:
    """How an object is named in sentences, as kubectl does: `job/canopy-train`."""
    return f"{item['kind'].lower()}/{item['metadata']['name']}"


def load(paths: Sequence[str]) -> tuple[Manifest, ...]:
    """Reads manifest files.

    Args:
        paths: files, in the order in which they are to be applied.

    Returns:
        A manifest a file.

    Raises:
        UserError: a file cannot be read, or what it holds is no manifest.
    """
    return tuple(Manifest(path, tuple(_objects(path))) for path in paths)


def in_namespace(manifests: Iterable[Manifest], namespace: str) -> None:
    """Checks that no object names another namespace than the one that all go to.

    Raises:
        UserError: one does.
    """
    for manifest in manifests:
        for item in manifest.objects:
            own = item["metadata"].get("namespace") or namespace  # kubectl takes a blank one for none, too
            if own != namespace:
                raise UserError(
                    f"{manifest.path}: {title(item)} names the namespace {own}, but the others go to "
                    f"{namespace}: give --namespace {own}, or take the name out of the file"
                )


def _objects(path: str) -> Iterator[KubeObject]:
    found = False
    for number, document in enumerate(_documents(path), start=1):
        if document is None:
            continue
        if isinstance(document, Mapping) and document.get("kind") == "Kustomization":
            raise UserError(f"{path} is a kustomization, not a manifest: --overlay takes its folder")
        for item in _taken_apart(document):
            _check(path, number, item)
            found = True
            yield item
    if not found:
        raise UserError(f"{path} holds no Kubernetes object")


def _documents(path: str) -> list[Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such manifest") from None
    except IsADirectoryError:
        raise UserError(
            f"{path} is a folder: name manifests one by one, in the order to run, and an overlay by --overlay"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    try:
        return list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise UserError(f"{path} is not valid YAML{place}: {problem}") from None


def _taken_apart(document: Any) -> list[Any]:
    if isinstance(document, Mapping) and document.get("kind") == "List":
        items = document.get("items") or []
        return items if isinstance(items, list) else [items]
    return [document]


def _check(path: str, number: int, item: Any) -> None:
    where = f"{path}: document {number}"
    if not isinstance(item, Mapping):
        raise UserError(f"{where} is no Kubernetes object but {type(item).__name__}")
    for key in ("apiVersion", "kind"):
        if not isinstance(item.get(key), str):
            raise UserError(f"{where} has no {key}")
    metadata = item.get("metadata")
    if not isinstance(metadata, Mapping) or not isinstance(metadata.get("name"), str):
        raise UserError(
            f"{where} ({item['kind']}) has no metadata.name, and without one it cannot be followed"
        )
