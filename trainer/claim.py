"""Whose run a model_dir holds: `run.json`.

Promises: another data set or other settings are refused with what differs; `--restart` deletes an earlier
run once, however often the workers of the new one are started, not before all that the user may have got
wrong has been looked at, and nothing that no run is known to have left; a run that is displaced while it
works, also by one that goes on with what it has saved, finds out before it saves, and never takes the folder
back; a finished run is known as such.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from canopy import contract
from canopy.cli import UserError
from trainer.config import Config, differences
from trainer.files import REFUSED, refusal, write_text

RUN_JSON = "run.json"
IDS = 2**40  # numbers of runs: few enough for workers to tell each other by sums of float64
RUN_FORMAT_VERSION = 1  # of run.json and the checkpoints beside it: a newer one is refused
RETRY_SECONDS = 1.0
KNOWN_DISPLACED = 20  # who comes back only after as many others is not told that it was displaced
# The user's mistakes, also those that are told as such only later: what does not fit wants other settings.
MISTAKES = (UserError, MemoryError, tf.errors.ResourceExhaustedError)
WRITTEN = ("metrics.jsonl", "checkpoints", "export", "export.partial", "logs")  # what a run leaves


@dataclass(frozen=True)
class Claim:
    """A run's hold on its model_dir."""

    path: str  # of run.json
    content: dict[str, Any]  # what it says
    writes: bool = False  # whether this worker is the chief
    is_new: bool = False  # whether this start of the run made it
    replaces: bool = False  # whether an earlier run stands until this one begins
    takes_over: bool = False  # whether it is a run that others, perhaps still alive, went on with before
    is_alone: bool = False  # whether all that bears the names of a run's files is going to be its own

    @property
    def finished(self) -> int:
        """The step after which the run was complete, 0 where it is not."""
        return int(self.content.get("finished") or 0)

    @property
    def id(self) -> int:
        """The run's own number, the same at all its starts; 0 for a run from before there were any."""
        return int(self.content.get("id") or 0)

    def begin(self) -> None:
        """Deletes the earlier run that this one replaces, or ends who goes on with the same one, if any.

        Call when no mistake is left to be found. The other workers have to wait: until then they would take
        up that run's checkpoints.

        Raises:
            UserError: where model_dir cannot be written, or holds the run that is to go on no longer.
        """
        if self.takes_over:
            with _using(self._folder):
                if _holder(self.path)[0] != self.id:
                    raise UserError(_taken(self._folder))
                write_text(self.path, json.dumps(self.content, indent=1))
        if not self.replaces:
            return
        with _using(self._folder):
            # run.json is written over last: what is half deleted still counts as that run.
            try:
                _delete(self._folder)
            except REFUSED:  # it may still be alive, and have saved just then
                time.sleep(RETRY_SECONDS)
                _delete(self._folder)
            write_text(self.path, json.dumps(self.content, indent=1))

    def check(self) -> None:
        """Finds out on the chief whether model_dir is still this run's; call before what is saved there.

        Raises:
            UserError: where it is not.
        """
        if not self.writes:
            return
        try:
            if not self._holds():
                raise UserError(_taken(self._folder))
        except tf.errors.NotFoundError as error:
            raise UserError(
                f"{self.path} is gone, so the folder is no longer this run's: "
                "give each run a --model_dir of its own"
            ) from error
        except REFUSED:
            return  # a storage that does not answer has not said that the run is another

    def finish(self, step: int) -> None:
        """Notes that the run is complete; call when its export stands.

        Raises:
            UserError: where another run has taken model_dir, or it cannot be written.
        """
        self.check()
        with _using(self._folder):
            write_text(self.path, json.dumps({**self.content, "finished": step}, indent=1))

    @contextlib.contextmanager
    def until_it_begins(self) -> Iterator[None]:
        """Gives up a hold that this start made where the user's mistake ends it before the first step.

        The mended command then needs no `--restart`: there is nothing that it could lose.
        """
        try:
            yield
        except MISTAKES:
            if self.is_new:
                with contextlib.suppress(*REFUSED):
                    if self._holds():
                        tf.io.gfile.remove(self.path)
            raise

    @contextlib.contextmanager
    def until_it_saves(self) -> Iterator[None]:
        """Lets the next run have the folder where the user's mistake ends this start before a checkpoint.

        As above, but what it wrote stays until then: its journal may tell what the mistake was.
        """
        try:
            yield
        except MISTAKES:
            if self.writes and (self.is_alone or self.replaces):
                with contextlib.suppress(*REFUSED):
                    if self._holds() and not _has_saved(self._folder):
                        write_text(self.path, json.dumps({**self.content, "void": True}, indent=1))
            raise

    def _holds(self) -> bool:
        return _holder(self.path) == (self.id, str(self.content.get("run") or ""))

    @property
    def _folder(self) -> str:
        return self.path.removesuffix(f"/{RUN_JSON}")


def run_id(environment: Mapping[str, str] | None = None) -> str:
    """What all starts of one run have in common, given by the launcher; by hand, each start is a run."""
    found = (os.environ if environment is None else environment).get(contract.RUN_ID)
    return found or uuid.uuid4().hex


def claim_model_dir(config: Config, fingerprint: str, is_chief: bool, run: str = "") -> Claim:
    """Makes `model_dir` this run's, or finds that it already is.

    Args:
        config: the run's settings.
        fingerprint: of the data set.
        is_chief: the chief alone writes; the others only compare.
        run: the same at every start of one run; with `--restart`, what another one left is deleted when
            this one begins.

    Raises:
        UserError: where model_dir holds a run of other data or settings and `--restart` is not given, or one
            that has displaced this one; where `--restart` finds what no run is known to have left; or where
            model_dir cannot be written.
    """
    path = f"{config.model_dir}/{RUN_JSON}"
    fresh = {
        "format_version": RUN_FORMAT_VERSION,
        "run": run,
        "id": 1 + uuid.uuid4().int % IDS,
        "config": dataclasses.asdict(config),
        "fingerprint": fingerprint,
    }
    with _using(config.model_dir):
        is_held = tf.io.gfile.exists(path)
        earlier = _read(path, config.restart) if is_held else None
        if earlier is not None and run and run in earlier.get("displaced", ()):
            raise UserError(_taken(config.model_dir))
        if config.restart and (earlier is None or not run or earlier.get("run") != run):
            if is_held:
                # Else each of the two would take the folder back from the other when it restarts in place.
                fresh["displaced"] = _line_of(earlier or {})
                return Claim(path, fresh, is_chief, replaces=is_chief)
            if is_chief:
                _check_left(config.model_dir)
        if earlier is not None and earlier.get("void"):
            fresh["displaced"] = list(earlier.get("displaced", ()))
            return Claim(path, fresh, is_chief, replaces=is_chief)
        if earlier is None:
            if is_chief:
                write_text(path, json.dumps(fresh, indent=1))
            is_alone = is_chief and not _left(config.model_dir)
            return Claim(path, fresh, is_chief, is_new=is_chief, is_alone=is_alone)
    # What this run's own chief has written is no earlier run: `alike` compares, when all workers are there.
    is_chiefs = not is_chief and bool(run) and earlier.get("run") == run
    found = [] if is_chiefs else differences(config, earlier["config"])
    if not is_chiefs and earlier["fingerprint"] != fingerprint:
        found.insert(0, f"data: fingerprint was {earlier['fingerprint'][:12]}, is {fingerprint[:12]}")
    if found:
        raise UserError(
            f"{config.model_dir} holds a run that this one cannot resume ({'; '.join(found)}): "
            "take another --model_dir, or begin anew with --restart"
        )
    # Two Jobs of one run would each take the other's checkpoints for its own: the later one goes on.
    takes_over = is_chief and bool(run) and earlier.get("run") != run
    if takes_over:
        earlier = {**earlier, "run": run, "displaced": _line_of(earlier)}
    claim = Claim(path, earlier, is_chief, takes_over=takes_over)
    # An export that was deleted is made again, from the last checkpoint.
    with _using(config.model_dir):
        exported = tf.io.gfile.exists(f"{config.model_dir}/export/{contract.MODEL_JSON}")
    return claim if exported else dataclasses.replace(claim, content={**earlier, "finished": None})


def may_go_on(config: Config, run: str = "") -> bool:
    """Whether a run may find a checkpoint to go on from; `restore` knows whether one is its own and sound.

    Args:
        config: the run's settings.
        run: the same at every start of one run: with `--restart`, only those after the first go on.

    Raises:
        UserError: where model_dir cannot be looked into.
    """
    path = f"{config.model_dir}/{RUN_JSON}"
    with _using(config.model_dir):
        if config.restart and not (run and tf.io.gfile.exists(path) and _holder(path)[1] == run):
            return False
        return _has_saved(config.model_dir)


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
    if "://" in path or "://" in folder:
        return f"{path.rstrip('/')}/".startswith(f"{folder}/")
    return Path(path).exists() and Path(path).resolve().is_relative_to(Path(folder).resolve())


@contextlib.contextmanager
def _using(model_dir: str) -> Iterator[None]:
    """Turns a storage's refusal into a sentence."""
    try:
        yield
    except REFUSED as error:
        raise refusal(f"--model_dir {model_dir} cannot be used ({error})", error) from error


def _check_left(model_dir: str) -> None:
    """Refuses what bears the names of a run's files where no run.json says that a run has left them."""
    if left := _left(model_dir):
        raise UserError(
            f"{model_dir} holds {', '.join(left)} and no {RUN_JSON}, so it is not known to be a run that "
            "--restart may delete: move that away, or take another --model_dir"
        )


def _left(model_dir: str) -> list[str]:
    return [name for name in WRITTEN if tf.io.gfile.exists(f"{model_dir}/{name}")]


def _has_saved(model_dir: str) -> bool:
    folder = f"{model_dir}/checkpoints"  # not a pattern: a bracket in it would stand for something else
    return tf.io.gfile.exists(folder) and bool(tf.io.gfile.listdir(folder))


def _delete(model_dir: str) -> None:
    """Deletes what an earlier run has left, but for its run.json."""
    for name in WRITTEN:
        path = f"{model_dir}/{name}"
        if tf.io.gfile.isdir(path):
            tf.io.gfile.rmtree(path)
        elif tf.io.gfile.exists(path):
            tf.io.gfile.remove(path)


def _taken(model_dir: str) -> str:
    return (
        f"another run has taken {model_dir}, so this one cannot go on there: give each run a --model_dir of "
        "its own"
    )


def _line_of(earlier: Mapping[str, Any]) -> list[str]:
    """The runs that a run displaces: the earlier one, and those that it has displaced."""
    runs = [*earlier.get("displaced", ()), earlier.get("run")]
    return [run for run in runs if run][-KNOWN_DISPLACED:]


def _holder(path: str) -> tuple[int, str]:
    """The run's number and what its starts have in common, as run.json has them; -1 where it is damaged."""
    try:
        with tf.io.gfile.GFile(path) as file:
            found = json.loads(file.read())
        return int(found.get("id") or 0), str(found.get("run") or "")
    except (ValueError, TypeError, AttributeError):
        return -1, ""


def _read(path: str, is_restart: bool) -> dict[str, Any] | None:
    """What run.json says; with `--restart`, one that cannot be understood is nobody's."""
    try:
        with tf.io.gfile.GFile(path) as file:
            found = dict(json.loads(file.read()))
        version = int(found.get("format_version", 1))
        if version > RUN_FORMAT_VERSION and not is_restart:
            raise UserError(
                f"{path} has format version {version}, and this Canopy reads up to {RUN_FORMAT_VERSION}: "
                "upgrade Canopy, or begin anew with --restart"
            )
        return {**found, "config": dict(found["config"]), "fingerprint": str(found["fingerprint"])}
    except (ValueError, KeyError, TypeError) as error:
        if is_restart:
            return None
        raise UserError(f"{path} cannot be understood ({error!r}): begin anew with --restart") from error
