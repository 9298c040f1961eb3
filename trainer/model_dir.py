"""What runs leave in a model_dir, known by name: whether a checkpoint is among it, and how it is deleted.

Promises: what bears another name is neither counted nor deleted; no run begins with what its `--restart`
deletes; a storage that refuses is one sentence.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from canopy.cli import UserError
from trainer.config import Config
from trainer.files import REFUSED, delete, is_there, refusal

# Besides run.json; of the export's other two one is half-written, and one was about to be replaced.
EXPORTS = ("export", "export.partial", "export.earlier")
WRITTEN = ("metrics.jsonl", "checkpoints", *EXPORTS, "logs")


@contextlib.contextmanager
def using(model_dir: str) -> Iterator[None]:
    """Turns a storage's refusal into a sentence."""
    try:
        yield
    except REFUSED as error:
        raise refusal(f"--model_dir {model_dir} cannot be used ({error})", error) from error


def left_in(model_dir: str) -> list[str]:
    """Which of the names of a run's files there are."""
    return [name for name in WRITTEN if is_there(f"{model_dir}/{name}")]


def replaced_in(model_dir: str) -> list[str]:
    """Which of them, not empty, a run's export would replace: to the others a run only adds."""
    found = [(name, f"{model_dir}/{name}") for name in left_in(model_dir) if name in EXPORTS]
    return [name for name, path in found if not tf.io.gfile.isdir(path) or _listed(path)]


def has_saved(model_dir: str) -> bool:
    """Whether there is a checkpoint, of whatever run."""
    folder = f"{model_dir}/checkpoints"  # not a pattern: a bracket in it would stand for something else
    return is_there(folder) and bool(_listed(folder))


def _listed(folder: str) -> list[str]:
    """The names in a folder, none where it has just gone."""
    try:
        return list(tf.io.gfile.listdir(folder))
    except tf.errors.NotFoundError:
        return []


def delete_from(model_dir: str) -> None:
    """Deletes what a run has left, but for its run.json."""
    for name in WRITTEN:
        delete(f"{model_dir}/{name}")


def check_sources(config: Config) -> None:
    """Finds out whether a run would begin with what its `--restart` deletes.

    It could be loaded before that, but not again by a worker that is started again.

    Raises:
        UserError: naming the flag.
    """
    if not config.restart:
        return
    for flag in ("data", "init_from", "weights", "backbone"):
        path = getattr(config, flag).removeprefix("hub:")
        if path and any(_is_within(path, f"{config.model_dir.rstrip('/')}/{name}") for name in WRITTEN):
            raise UserError(
                f"--{flag} {path} lies in what --restart deletes of --model_dir {config.model_dir}: "
                "copy it to another place first, or take another --model_dir"
            )


def _is_within(path: str, folder: str) -> bool:
    if "://" in folder:
        return f"{path.rstrip('/')}/".startswith(f"{folder}/")
    return Path(path).exists() and Path(path).resolve().is_relative_to(Path(folder).resolve())
