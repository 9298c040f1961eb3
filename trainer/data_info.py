"""What a data folder says of itself: classes, shards, counts, fingerprint.

Promises: a folder without its commit marker, of a newer format version, without the split asked for or
without one of its shards is refused with one sentence, and so is a canopy.json in which a key that is read is
missing or holds something else. Local folders are read without TensorFlow, so that flags can be checked at
once.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

from canopy import contract, shared_disk
from canopy.cli import UserError, first_line
from canopy.transient import told
from trainer import integrity
from trainer.config import Config
from trainer.shard import Shard

MOST_TIMES = 100  # the training records that a global batch may be: what it has beyond them is padding
# How a data set that has none but another's tags gets all of them, in the same order.
ALIKE = (
    f"preprocess this data with --vocabulary and the {contract.LABELS_TXT} of the records that the model was "
    "trained on"
)
KINDS = {dict: "an object", list: "a list", str: "a text", int: "a whole number from 0 on"}
T = TypeVar("T", dict[str, Any], list[Any], str, int)


@dataclass(frozen=True)
class DataInfo:
    """A data folder that was found whole."""

    folder: str  # local or gs://
    name: str  # of the data set, such as planet
    vocabulary: tuple[str, ...]  # class names in the order of their ids
    fingerprint: str  # equal for equal records
    splits: dict[str, tuple[Shard, ...]]  # the shards of each split, in their order
    facts: dict[str, Any]  # canopy.json as it stands

    @property
    def prior(self) -> list[float]:
        """Share of the training records that have each tag."""
        found = self.facts["splits"]["train"]
        return [found["tags"].get(tag, 0) / max(1, found["records"]) for tag in self.vocabulary]

    def check_batch(self, batch_size: int) -> None:
        """Finds out whether a global batch is nearly all padding: it might be more than any memory holds.

        Raises:
            UserError: naming the flag.
        """
        records = sum(shard.records for shard in self.splits.get("train", ()))
        if batch_size > MOST_TIMES * records:
            raise UserError(
                f"--batch_size {batch_size} is over {MOST_TIMES} times the {records} training records of "
                f"{self.folder}: take at most as many as there are"
            )

    def check_counts(self) -> None:
        """Finds out whether canopy.json holds what a report tells beyond what training needs.

        Raises:
            UserError: naming the key that is missing or holds something else.
        """
        with _told(self.folder):
            images = _value(self.facts, "images", dict)
            for key in ("found", "written", "rejected", "suspicious"):
                _value(images, key, int, "images.")
            _list(images, "suspicious_names", str, "images.")
            _object(self.facts, "rejects", int)
            for split, found in _object(self.facts, "splits", dict).items():
                _value(found, "bytes", int, f"splits.{split}.")

    def check_start(self, config: Config) -> None:
        """Finds out whether a run on this data can start from its `--init_from`.

        Raises:
            UserError: where it is no export, or one of other tags: each unit of its network stands for one,
                in their order; or where its settings say that its network is another one.
        """
        folder = config.init_from
        path = f"{folder}/{contract.MODEL_JSON}"
        text = _read_text(path)
        if text is None:
            inner = f"{folder.rstrip('/')}/export"
            named = f": name {inner}" if _read_text(f"{inner}/{contract.MODEL_JSON}") else ""
            raise UserError(
                f"--init_from {folder}: there is no {contract.MODEL_JSON}, so it is no export{named}"
            )
        try:
            described = json.loads(text)
            found = tuple(map(str, described["classes"]))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"--init_from: {path} cannot be understood ({error!r})") from error
        for number, (its, own) in enumerate(zip_longest(found, self.vocabulary), start=1):
            if its != own:
                raise UserError(
                    f"--init_from {folder}: its {len(found):,} tags are not the data set's "
                    f"{len(self.vocabulary):,} in their order: number {number} is "
                    f"{its or 'missing'} there and {own or 'missing'} here"
                    + (f": {ALIKE}" if {*self.vocabulary} <= {*found} else "")
                )
        _check_network(described.get("config"), config)

    def shards(self, split: str) -> tuple[Shard, ...]:
        """The shards of a split that holds at least one record.

        Raises:
            UserError: where there is no such split, or nothing in it, or where a local shard is missing or
                has another size than canopy.json says.
        """
        shards = self.splits.get(split, ())
        if not sum(shard.records for shard in shards):
            have = ", ".join(
                f"{name} ({sum(s.records for s in found)})" for name, found in self.splits.items()
            )
            raise UserError(
                f"{self.folder} holds no records of split {split!r}: it has {have}, and "
                "beam_jobs.preprocess --splits gives each its share"
            )
        integrity.check_sizes(shards)
        return shards


def read(folder: str) -> DataInfo:
    """Reads what a data folder says of itself.

    Args:
        folder: what `beam_jobs.preprocess --output` was given.

    Raises:
        UserError: where the folder is missing, partial, damaged, or of a newer format version.
    """
    folder = folder.rstrip("/")
    if _read_text(f"{folder}/{contract.DATASET_INFO}") is None:
        is_there = "://" in folder or Path(folder).is_dir()
        lacking = f"holds no {contract.DATASET_INFO}, so it is no complete data folder"
        what = lacking if is_there else "is no folder"
        raise UserError(f"{folder} {what}: name the --output of a beam_jobs.preprocess that has finished")
    text = _read_text(f"{folder}/{contract.CANOPY_JSON}")
    if text is None:
        raise UserError(
            f"{folder} holds no {contract.CANOPY_JSON}: it was not written by beam_jobs.preprocess"
        )
    with _told(folder):
        facts = _checked(json.loads(text), dict, "it")
        version = _value(facts, "format_version", int)
        if version > contract.DATA_FORMAT_VERSION:
            raise UserError(
                f"{folder} has data format version {version}, and this Canopy reads up to "
                f"{contract.DATA_FORMAT_VERSION}: upgrade Canopy or preprocess again"
            )
        splits = {
            split: _shards(folder, found, f"splits.{split}.")
            for split, found in _object(facts, "splits", dict).items()
        }
        return DataInfo(
            folder,
            _value(facts, "dataset", str),
            tuple(_list(facts, "vocabulary", str)),
            _value(facts, "fingerprint", str),
            splits,
            facts,
        )


def _check_network(its: Any, config: Config) -> None:
    """Finds out from an export's settings, where it has some, whether a run's network is of its shape."""
    if not isinstance(its, dict):
        return
    kinds = [str(each).partition(":")[0] for each in (its.get("backbone"), config.backbone)]
    name = "backbone" if kinds[0] != kinds[1] else "alpha"
    there, here = its.get(name), getattr(config, name)
    # Whether two Hub models are alike, only their variables tell.
    if there not in (None, here) and (name == "backbone" or kinds[1] == "keras"):
        raise UserError(
            f"--init_from {config.init_from}: its network is another one, of --{name} {there}, and this "
            f"run's is of --{name} {here}: add --{name} {there}"
        )


def _shards(folder: str, split: dict[str, Any], where: str) -> tuple[Shard, ...]:
    """The shards of a split; `DataInfo.prior` and a report read what else is looked at."""
    _value(split, "records", int, where)
    _object(split, "tags", int, where)
    return tuple(
        _shard(folder, each, f"{where}shards.{number}.")
        for number, each in enumerate(_list(split, "shards", dict, where))
    )


def _shard(folder: str, facts: dict[str, Any], where: str) -> Shard:
    name = _value(facts, "name", str, where)
    if "/" in name:  # a data set may be anybody's, and no file beside it is its own
        raise ValueError(f"{where}name must be a file's name, and is {json.dumps(name)[:40]}")
    return Shard(
        f"{folder}/{name}",
        _value(facts, "records", int, where),
        _value(facts, "bytes", int, where, default=-1),
        _value(facts, "crc32c", str, where, default=""),
    )


@contextlib.contextmanager
def _told(folder: str) -> Iterator[None]:
    """Turns what is wrong with canopy.json into one sentence."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{folder}/{contract.CANOPY_JSON} cannot be understood: {error}") from error


def _value(found: dict[str, Any], key: str, kind: type[T], where: str = "", default: T | None = None) -> T:
    """A key's value; where it is missing or of another kind, `where` it belongs is told."""
    if key in found:
        return _checked(found[key], kind, where + key)
    if default is None:
        raise ValueError(f"{where}{key} is missing")
    return default


def _object(found: dict[str, Any], key: str, kind: type[T], where: str = "") -> dict[str, T]:
    """A key's object, whose values are all of one kind."""
    parts = _value(found, key, dict, where)
    return {name: _checked(part, kind, f"{where}{key}.{name}") for name, part in parts.items()}


def _list(found: dict[str, Any], key: str, kind: type[T], where: str = "") -> list[T]:
    """A key's list, whose members are all of one kind."""
    parts = _value(found, key, list, where)
    return [_checked(part, kind, f"{where}{key}.{number}") for number, part in enumerate(parts)]


def _checked(value: Any, kind: type[T], where: str) -> T:
    if not isinstance(value, kind) or isinstance(value, bool) or (isinstance(value, int) and value < 0):
        raise ValueError(f"{where} must be {KINDS[kind]}, and is {json.dumps(value)[:40]}")
    return value


def _read_text(path: str) -> str | None:
    """The text of a file, None where there is none; over what is no text its reader stumbles."""
    if "://" in path:
        import tensorflow as tf

        from trainer.files import refusal

        try:
            if not tf.io.gfile.exists(path):
                return None
            with tf.io.gfile.GFile(path, "rb") as file:
                return bytes(file.read()).decode("utf-8", "replace")
        except tf.errors.OpError as error:  # no such bucket, no permission, no way to the store
            raise refusal(f"{path} cannot be read ({first_line(error)})", error) from error
    local = Path(path)
    shared_disk.look_for(local)
    try:
        return local.read_text(encoding="utf-8", errors="replace") if local.is_file() else None
    except FileNotFoundError:  # another machine has removed it
        return None
    except OSError as error:  # no permission; a name that is too long
        raise told(f"{path} cannot be read ({first_line(error)})", error) from error
