"""What a search ends with: a table of the best trials, plots, and the command line to train with.

Promises: the command line can be pasted into a shell as it is; plots are files that are there whole.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from canopy.cli import UserError
from trainer.tuning import search, trial
from trainer.tuning.search import Space
from trainer.tuning.settings import Settings
from trainer.tuning.storage import UNREACHABLE, reason
from trainer.tuning.study import best_of

SHOWN = 10  # trials in the table
LOG_WIDTH = 160  # columns, where no terminal says how many there are


def tell(
    settings: Settings,
    study: optuna.Study,
    space: Space,
    trials: list[FrozenTrial],
    *,
    output: Path,
    halted: bool,
) -> None:
    """Prints the search's outcome and writes its plots.

    Args:
        settings: of the search.
        study: with all its trials.
        space: that they were drawn from.
        trials: the last try of each finished slot.
        output: folder of the trials.
        halted: whether the time limit has passed.

    Raises:
        UserError: where no trial is complete, and the search is over.
    """
    best, goes_on = best_of(trials), halted and len(trials) < settings.trials
    counts = {state: sum(each.state == state for each in trials) for state in TrialState}
    done = (
        f"{len(trials)} of {settings.trials} trials: {counts[TrialState.COMPLETE]} complete, "
        f"{counts[TrialState.PRUNED]} pruned, {counts[TrialState.FAIL]} failed"
    )
    if best is None:
        if not goes_on:
            why = next((each.user_attrs.get("why") for each in reversed(trials)), None)
            raise UserError(f"no trial is complete ({done}); the last one: {why or 'pruned'}")
        print(f"{done}; no time was left for one: the same command goes on")
        return
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
    console.print(table(trials, space))
    made = plots(study, output)
    print(done + ("; the time is over, the same command goes on" if goes_on else ""))
    print(f"trials: {output}" + "".join(f"\nplot: {path}" for path in made))
    print(f"best: F2 {best.value:.4f}, {trial.folder_of(output, best.number) / 'export'}")
    print(command(settings, best, space, output))


def command(settings: Settings, best: FrozenTrial, space: Space, output: Path) -> str:
    """The shell command that trains as the best trial did."""
    words = ["python", "-m", "trainer.launch", "--local_workers", str(settings.local_workers), "--"]
    words += ["--data", settings.data, "--model_dir", str(output / "best")]
    words += [*search.flags(space.tidy(best.params)), *settings.fixed]
    return shlex.join(words)


def table(trials: list[FrozenTrial], space: Space) -> Table:
    """The best trials, one at least, the best first."""
    complete = [each for each in trials if each.state == TrialState.COMPLETE]
    complete.sort(key=lambda each: (-(each.value or 0.0), each.number))
    names = list(complete[0].params)
    shown = Table(title="best trials")
    for name in ("trial", "F2", "seconds", *names):
        shown.add_column(name, justify="right")
    for each in complete[:SHOWN]:
        values = space.tidy(each.params)
        shown.add_row(
            str(each.number),
            f"{each.value:.4f}",
            f"{each.user_attrs.get('seconds', 0):.0f}",
            *(str(values[name]) for name in names),
        )
    return shown


def plots(study: optuna.Study, output: Path) -> list[Path]:
    """Writes how the best F2 grew, and which flags mattered; returns the files.

    The workers of a search may end, and write them, at once: each file is whole, and one of theirs. One for
    which the study cannot be read any more, or that cannot be written, is told and left out: the trials stand
    without it.
    """
    import matplotlib as mpl

    mpl.use("agg")
    from optuna.visualization import matplotlib as drawn

    def importances(study: optuna.Study) -> Any:
        # Optuna's default evaluator needs scikit-learn, this one does not.
        return drawn.plot_param_importances(study, evaluator=optuna.importance.PedAnovaImportanceEvaluator())

    made = []
    wanted: dict[str, Callable[[optuna.Study], Any]] = {
        "history.png": drawn.plot_optimization_history,
        "importance.png": importances,
    }
    for name, draw in wanted.items():
        mine = output / f".{uuid.uuid4().hex}-{name}"
        # Too few trials, or all alike, say nothing about importance: that is no reason to fail.
        with warnings.catch_warnings(), contextlib.suppress(ValueError, RuntimeError):
            warnings.simplefilter("ignore")
            try:
                figure = draw(study).figure
                figure.savefig(mine, format="png", dpi=150, bbox_inches="tight")
                mine.replace(output / name)
                made.append(output / name)
            except (OSError, *UNREACHABLE) as error:
                print(f"no plot: {output / name} cannot be made ({reason(error)})", file=sys.stderr)
            finally:
                with contextlib.suppress(OSError):
                    mine.unlink(missing_ok=True)
    return made
