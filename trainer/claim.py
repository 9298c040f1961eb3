"""Whose run a model_dir holds: `run.json`.

Promises: other data or settings are refused with what differs; `--restart` deletes an earlier run once,
however often the workers of the new one are started, only when no mistake is left to be found, and nothing
that no run is known to have left; a run that is displaced while it works, be it by one that goes on from its
checkpoints, finds out before it saves, and never takes the folder back; a finished run is known as such.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from canopy import contract, shared_disk
from canopy.cli import UserError
from trainer.config import Config, differences
from trainer.files import REFUSED, is_there, read, write_text
from trainer.model_dir import delete_from, has_saved, left_in, replaced_in, using

RUN_JSON = "run.json"
IDS = 2**40  # numbers of runs: few enough for workers to tell each other by sums of float64
RUN_FORMAT_VERSION = 1  # of run.json and the checkpoints beside it: a newer one is refused
RETRY_SECONDS = 1.0
KNOWN_DISPLACED = 20  # a run that comes back after so many others is not told any more that it was displaced
# The user's mistakes, and what trainer.task reports as one: too little memory calls for other settings.
MISTAKES = (UserError, MemoryError, tf.errors.ResourceExhaustedError)


@dataclass(frozen=True)
class Claim:
    """A run's hold on its model_dir."""

    path: str  # of run.json
    content: dict[str, Any]  # what it says
    writes: bool = False  # whether this worker is the chief
    is_new: bool = False  # whether this start of the run made it
    replaces: bool = False  # whether an earlier run stands until this one begins
    takes_over: bool = False  # whether it goes on with what another had, which may still be alive
    is_alone: bool = False  # whether all that bears the names of a run's files will be its own

    @property
    def finished(self) -> int:
        """The step after which the run was complete, 0 where it is not."""
        return int(self.content.get("finished") or 0)

    @property
    def id(self) -> int:
        """The run's own number, the same at all its starts; 0 for a run from before there were any."""
        return int(self.content.get("id") or 0)

    def begin(self) -> None:
        """Deletes the earlier run that this one replaces, or takes over the one that it goes on with, if any.

        Call when no mistake is left to be found. The other workers have to wait: until then they would take
        up that run's checkpoints.

        Raises:
            UserError: where model_dir cannot be written, or no longer holds the run that is to go on.
        """
        with using(self._folder):
            if self.takes_over and _holder(self.path)[0] != self.id:
                raise UserError(_taken(self._folder))
            if self.replaces:
                try:
                    delete_from(self._folder)
                except REFUSED:  # it may still be alive, and have saved just then
                    time.sleep(RETRY_SECONDS)
                    delete_from(self._folder)
            if self.takes_over or self.replaces:
                self.write()  # last: what is half deleted still counts as the earlier run

    def write(self, **changes: Any) -> None:
        """Writes run.json.

        Args:
            changes: what it says besides `content`, or instead.
        """
        write_text(self.path, json.dumps({**self.content, **changes}, indent=1))

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
        with using(self._folder):
            self.write(finished=step)

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
            if self.is_alone or self.replaces:
                with contextlib.suppress(*REFUSED):
                    if self._holds() and not has_saved(self._folder):
                        self.write(void=True)
            raise

    def _holds(self) -> bool:
        return _holder(self.path) == (self.id, self.content["run"])

    @property
    def _folder(self) -> str:
        return self.path.removesuffix(f"/{RUN_JSON}")


def run_id(environment: Mapping[str, str]) -> str:
    """What all starts of one run have in common, given by the launcher; by hand, each start is a run.

    Args:
        environment: in which the launcher has put it.
    """
    return environment.get(contract.RUN_ID) or uuid.uuid4().hex


def claim_model_dir(config: Config, fingerprint: str, is_chief: bool, run: str) -> Claim:
    """Makes `model_dir` this run's, or finds that it already is.

    Args:
        config: the run's settings.
        fingerprint: of the data set.
        is_chief: the chief alone writes, and finds what is wrong: the others may see what was there before.
        run: the same at every start of one run; with `--restart`, what another one left is deleted when
            this one begins.

    Raises:
        UserError: where model_dir holds a run of other data or settings and `--restart` is not given, or one
            that has displaced this one; where `--restart` finds what no run is known to have left; or where
            model_dir cannot be written.
    """
    path = f"{config.model_dir}/{RUN_JSON}"
    fresh: dict[str, Any] = {
        "format_version": RUN_FORMAT_VERSION,
        "run": run,
        "id": 1 + uuid.uuid4().int % IDS,
        "config": dataclasses.asdict(config),
        "fingerprint": fingerprint,
    }
    with using(config.model_dir):
        earlier = _read(path, is_lenient=config.restart or not is_chief)
        if not is_chief and not earlier:
            return Claim(path, fresh)
        if earlier is None:
            return _claim_free(path, fresh, config)
        if run in earlier.get("displaced", ()):
            raise UserError(_taken(config.model_dir))
        is_own = earlier.get("run") == run
        restarts = config.restart and not is_own
        if restarts or earlier.get("void"):
            # Else each of two runs would take the folder back from the other when it restarts in place.
            fresh["displaced"] = _line_of(earlier) if restarts else earlier.get("displaced", [])
            return Claim(path, fresh, is_chief, replaces=is_chief)
        # What this run's own chief has written is compared by `alike`, when all workers are there.
        unlike = _unlike(config, fingerprint, earlier) if is_chief or not is_own else []
        if unlike and not is_chief:
            return Claim(path, fresh)
        if unlike:
            raise UserError(_not_its_run(config, unlike))
        # Two Jobs of one run would each take the other's checkpoints for its own: the later one goes on.
        takes_over = is_chief and not is_own
        if takes_over:
            earlier |= {"run": run, "displaced": _line_of(earlier)}
        if not is_there(f"{config.model_dir}/export/{contract.MODEL_JSON}"):
            earlier["finished"] = None  # an export that was deleted is made again, from the last checkpoint
        return Claim(path, earlier, is_chief, takes_over=takes_over)


def _claim_free(path: str, fresh: dict[str, Any], config: Config) -> Claim:
    """Claims a folder that no run is known to hold."""
    left = left_in(config.model_dir)
    lost = left if config.restart else replaced_in(config.model_dir)
    if lost:
        may = "--restart may delete" if config.restart else "this one's export may replace"
        raise UserError(
            f"{config.model_dir} holds {', '.join(lost)} and no {RUN_JSON}, so it is not known to be a run "
            f"that {may}: move that away, or take another --model_dir"
        )
    claim = Claim(path, fresh, writes=True, is_new=True, is_alone=not left)
    claim.write()
    return claim


def _unlike(config: Config, fingerprint: str, earlier: Mapping[str, Any]) -> list[str]:
    """In what this run differs from the one that the folder holds."""
    found = differences(config, earlier["config"])
    if earlier["fingerprint"] != fingerprint:
        found.insert(0, f"data: fingerprint was {earlier['fingerprint'][:12]}, is {fingerprint[:12]}")
    return found


def _not_its_run(config: Config, unlike: Sequence[str]) -> str:
    export = f"{config.model_dir}/export"
    is_trained = tf.io.gfile.exists(f"{export}/{contract.MODEL_JSON}")
    on = f", where --init_from {export} goes on from its weights" if is_trained else ""
    return (
        f"{config.model_dir} holds a run that this one cannot resume ({'; '.join(unlike)}): "
        f"take another --model_dir{on}, or begin anew with --restart"
    )


def may_go_on(config: Config, run: str) -> bool:
    """Whether a run may find a checkpoint to go on from; `restore` knows whether one is its own and sound.

    Args:
        config: the run's settings.
        run: the same at every start of one run: with `--restart`, only those after the first go on.

    Raises:
        UserError: where model_dir cannot be looked into.
    """
    path = f"{config.model_dir}/{RUN_JSON}"
    with using(config.model_dir):
        if config.restart and not (is_there(path) and _holder(path)[1] == run):
            return False
        return has_saved(config.model_dir)


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
        found = json.loads(read(path))
        return int(found.get("id") or 0), str(found.get("run", ""))
    except (ValueError, TypeError, AttributeError):
        return -1, ""


def _read(path: str, is_lenient: bool) -> dict[str, Any] | None:
    """What run.json says; None without one; `{}` for one that need not be understood."""
    shared_disk.look_for(path)
    try:
        found = dict(json.loads(read(path)))
        version = int(found["format_version"])
        if version > RUN_FORMAT_VERSION and not is_lenient:
            raise UserError(
                f"{path} has format version {version}, and this Canopy reads up to {RUN_FORMAT_VERSION}: "
                "upgrade Canopy, or begin anew with --restart"
            )
        return {**found, "config": dict(found["config"]), "fingerprint": str(found["fingerprint"])}
    except tf.errors.NotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        if is_lenient:
            return {}
        raise UserError(f"{path} cannot be understood ({error!r}): begin anew with --restart") from error
