"""Searches for the best flags of a training run; several workers may share the search.

Promises: all workers together train the number of trials wanted and no more; one trial's failure never ends
the search; a worker may be killed at any moment and the same command goes on; a mistake that every trial
would make is found before the first; it ends with the command line that trains with the best flags.

    python -m trainer.tune --data build/demo/tfrecords --study build/demo/study.log --trials 20 \
        -- --epochs 4 --weights none
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from optuna.trial import Trial

from canopy import cli
from canopy.cli import TryAgainError, UserError
from trainer import config, data_info, outputs, weights
from trainer.config import Config
from trainer.data_info import DataInfo
from trainer.halt import Halt
from trainer.network import hub
from trainer.tuning import report, sampling, search, slots, storage, study, trial
from trainer.tuning.search import Space
from trainer.tuning.settings import Settings, parse
from trainer.tuning.study import Study, TakenError
from trainer.tuning.trial import Training

POLL_SECONDS = 0.5
IDLE_SECONDS = 2.0  # between looks at what other workers do
LOST_FOR_GOOD = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}  # no restart helps
READABLE = ("--log_format", "text")  # a trial's log is read for the reason of its end

End = Literal["complete", "pruned", "failed", "stopped", "taken"]


def main(argv: Sequence[str] | None = None) -> int:
    """Searches, and returns the exit code."""
    return cli.run(lambda: _tune(parse(argv)))


def _tune(settings: Settings) -> int:
    space = search.chosen(settings.space, search.names(settings.fixed))
    if "epochs" in space.parts and settings.pruner != "none":
        raise UserError(
            f"--space epochs={space.texts['epochs']}: --pruner {settings.pruner} compares trials of one "
            "length, epoch by epoch: add --pruner none, or fix --epochs behind --"
        )
    base, info = _check(settings, space)
    output = _check_output(settings)
    opened = storage.open_study(
        settings.study,
        settings.study_name,
        terms=_terms(base, space, info),
        output=output,
        sampler=sampling.SeededSampler(settings.seed, space.baseline()),
        pruner=sampling.make_pruner(settings.pruner, base.epochs),
    )
    shared = Study(opened, settings.trials, settings.stale_after)
    with Halt(settings.timeout) as halt:
        with _explained():
            if code := _Worker(settings, base.epochs, space, output, shared, halt).work():
                return code
            trials = shared.trials()
        if halt.code:
            _say(f"stopped after {len(trials)} of {settings.trials} trials; the same command goes on")
            return halt.code
    report.tell(settings, opened, space, trials, output=output, halted=halt.asked)
    return cli.EXIT_OK


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turns what keeps a worker from its study or its folders into what the worker ends with."""
    try:
        yield
    except storage.UNREACHABLE as error:
        raise TryAgainError(f"the study: {storage.reason(error)}") from error
    except OSError as error:
        kind = UserError if error.errno in LOST_FOR_GOOD else TryAgainError
        raise kind(f"the search cannot go on: {error}") from error


def _check(settings: Settings, space: Space) -> tuple[Config, DataInfo]:
    """Finds the mistakes that every trial would make, and returns the fixed settings and the data."""
    taken = sorted({"data", "model_dir", "restart"} & set(search.names(settings.fixed)))
    if taken:
        raise UserError(f"--{taken[0]} behind -- is not for a search: it sets {taken[0]} for each trial")
    words = ["--data", settings.data, "--model_dir", str(settings.output), *settings.fixed]
    prog = "python -m trainer.tune"
    base = config.parse(words, prog)
    probes = [config.parse([*words, *search.flags(probe)], prog) for probe in space.probes()]
    for probe in probes:
        config.check_batch(probe.batch_size, settings.local_workers)
        hub.check(probe.backbone)
    info = data_info.read(settings.data)
    info.shards("train"), info.shards("validation")
    info.check_batch(max(probe.batch_size for probe in probes))
    for probe in probes if base.init_from else ():
        info.check_start(probe)
    weights.look_once(
        {(probe.weights, probe.alpha, probe.image_size) for probe in probes if probe.takes_weights}
    )
    return base, info


def _terms(base: Config, space: Space, info: DataInfo) -> dict[str, object]:
    """What all workers of a study have to agree on."""
    fixed = {
        f"--{name}": value
        for name, value in dataclasses.asdict(base).items()
        if name not in config.RESUMABLE and name not in space.parts
    }
    searched = {f"--space {name}": text for name, text in space.texts.items()}
    return {"fingerprint of --data": info.fingerprint, **searched, **fixed}


def _check_output(settings: Settings) -> Path:
    """Finds out whether the search can be written down, and returns the folder of its trials."""
    path = storage.journal_path(settings.study)
    if path is not None:
        outputs.check_folder("--study", str(path.parent))
    outputs.check_folder("--output", settings.output)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    return Path(settings.output)


@dataclass(frozen=True)
class _Worker:
    """This process' part of the search."""

    settings: Settings
    epochs: int  # of a whole trial
    space: Space
    output: Path  # folder of the trials
    shared: Study
    halt: Halt

    def work(self) -> int:
        """Trains trial after trial until the study has as many as wanted, or this worker has to end.

        Returns:
            The exit code, other than 0 where too many trials in a row failed: the next would, too.
        """
        failed, told = 0, False
        while not self.halt.asked and len(self.shared.standing().finished) < self.settings.trials:
            self._rescue()
            taken = self.shared.claim(self.space)
            if taken is None:
                if not told:
                    _say("no trial is left to begin: waiting for those of other workers")
                told = True
                self.halt.wait(IDLE_SECONDS)
                continue
            end, why = self._train(taken)
            failed = failed + 1 if end == "failed" else 0
            if failed >= self.settings.max_failures:
                return self._give_up(f"{failed} trials in a row failed here, the last one with: {why}")
        return cli.EXIT_OK

    def _train(self, taken: Trial) -> tuple[End, str]:
        """Trains a trial and returns how it ended, and why it failed."""
        number, since = taken.number, time.monotonic()
        flags = ["--data", self.settings.data, *search.flags(self.space.tidy(taken.params))]
        launch = ["--local_workers", str(self.settings.local_workers)]
        launch += ["--max_restarts", str(self.settings.max_restarts)]
        try:
            folder = trial.make_folder(self.output, number, taken.user_attrs.get("previous"))
        except FileExistsError as error:
            raise UserError(f"--output {self.output} is used by another study: {error}") from error
        _say(f"trial {number} begins: {self._values(taken)}")
        try:
            with Training(folder, launch, [*flags, *self.settings.fixed, *READABLE]) as training:
                end, why = self._follow(taken, training)
            f2 = trial.exported_f2(folder) if end == "complete" else None
            if end == "complete" and f2 is None:
                end, why = "failed", f"{folder} holds no F2 of an export"
            seconds = time.monotonic() - since
            self.shared.tell(taken, f2, why, seconds=round(seconds, 1))
        except TakenError:
            _say(f"trial {number} was silent for too long: another worker has it now")
            return "taken", ""
        if end != "stopped":
            self._tell(taken, end, f2, why, seconds)
        self._trim()
        return end, why

    def _follow(self, taken: Trial, training: Training) -> tuple[End, str]:
        """Waits for a trial's end, or a reason to end it."""
        while True:
            code = training.poll()  # before the epochs, so that none of an ended one is missed
            for epoch, f2 in training.epochs():
                _say(f"trial {taken.number}: epoch {epoch}, F2 {f2:.4f}")
                bad = self.shared.report(taken, epoch, f2)
                if bad and code is None and epoch < self.epochs:
                    return "pruned", ""
            if code == cli.EXIT_OK:
                return "complete", ""
            if self.halt.asked:
                return "stopped", slots.STOPPED
            if code is not None:
                return "failed", training.reason(code)
            self.shared.beat(taken)
            self._rescue()
            self.halt.wait(POLL_SECONDS)

    def _give_up(self, why: str) -> int:
        """Ends this worker: for good where no trial has ever gone well, else so that it is started elsewhere.

        A machine whose GPU is broken would fail trial after trial, and take them all from the others.
        """
        if not any(each.value is not None for each in self.shared.trials()):
            raise UserError(why)
        _say(why)
        cli.leave_word(why)
        return cli.EXIT_PEER_LOST

    def _rescue(self) -> None:
        for number in self.shared.rescue():
            _say(f"trial {number} was lost: its worker gives no sign of life")

    def _trim(self) -> None:
        """Keeps of all trials that have ended what is asked for."""
        if self.settings.keep == "all":
            return
        ended = self.shared.trials()
        best = study.best_of(ended)
        for each in ended:
            trial.trim(trial.folder_of(self.output, each.number), keep_export=each is best)

    def _tell(self, taken: Trial, end: End, f2: float | None, why: str, seconds: float) -> None:
        """One line for a finished trial."""
        ended = self.shared.trials()
        best = study.best_of(ended)
        what = {"complete": f"F2 {f2 or 0:.4f}", "pruned": "pruned", "failed": f"failed ({why})"}[end]
        record = f", best F2 {best.value:.4f} (trial {best.number})" if best else ""
        _say(
            f"trial {taken.number}: {what} in {seconds:.0f} s{record}, "
            f"{len(ended)} of {self.settings.trials} done; {self._values(taken)}"
        )

    def _values(self, taken: Trial) -> str:
        """What a trial tries, for a line."""
        return ", ".join(f"{name} {value}" for name, value in self.space.tidy(taken.params).items())


def _say(text: str) -> None:
    print(f"tune: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
