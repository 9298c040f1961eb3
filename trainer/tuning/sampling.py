"""How a search draws its trials and ends bad ones: what Optuna is set to do.

Promises: the n-th trial's draw depends on the seed and n, so that workers that start together do not draw the
same, and a search can be repeated; the first trial tries the defaults, whoever begins it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial

from trainer.tuning.search import Choice, Range, Space, Value

RANDOM_TRIALS = 10  # drawn at random before the sampler follows what it has seen: Optuna's own default
UNPRUNED_TRIALS = 5  # whole ones before the first may be cut: Optuna's own default


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space, as Optuna takes it."""
    return {name: _distribution(part) for name, part in space.parts.items()}


def make_pruner(kind: str, epochs: int) -> BasePruner:
    """What ends bad trials after an epoch.

    Args:
        kind: median (worse than half of the others were at that epoch), hyperband, or none.
        epochs: of a whole trial. The learning rate warms up and the first epochs say little: a third of them
            is never cut short.
    """
    if kind == "median":
        return MedianPruner(n_startup_trials=UNPRUNED_TRIALS, n_warmup_steps=1 + epochs // 3)
    if kind == "hyperband":
        return HyperbandPruner(min_resource=max(1, epochs // 9), max_resource=epochs, reduction_factor=3)
    return NopPruner()


class SeededSampler(TPESampler):
    """The Tree-structured Parzen Estimator with a seed of its own for each trial.

    Workers of one study that start with one seed would otherwise draw the same values.
    """

    def __init__(self, seed: int, baseline: Mapping[str, Value] = MappingProxyType({})) -> None:
        """Begins with nothing drawn.

        Args:
            seed: of all trials.
            baseline: what the first trial tries; what it lacks is drawn. An entry of the study that says so
                could come too late for another worker, or never, from one that is killed before.
        """
        self._seed_of_all, self._baseline = seed, baseline
        self._begin(seed)

    def _begin(self, seed: int) -> None:
        # Joint, as the learning rate that suits depends on the other values; constant_liar keeps workers
        # from trying at the same time what one of them tries already.
        super().__init__(seed=seed, n_startup_trials=RANDOM_TRIALS, multivariate=True, constant_liar=True)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Begins anew for each trial."""
        self._begin((self._seed_of_all * 1_000_003 + trial.number) % 2**32)
        super().before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """What is drawn together: nothing of the first trial."""
        return {} if _is_first(trial) else super().infer_relative_search_space(study, trial)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draws one value; of the first trial it is the baseline's."""
        if _is_first(trial) and param_name in self._baseline:
            return self._baseline[param_name]
        return super().sample_independent(study, trial, param_name, param_distribution)


def _is_first(trial: FrozenTrial) -> bool:
    """Whether it is a study's first trial, or tries that one again."""
    return bool(trial.user_attrs.get("root", trial.number) == 0)


def _distribution(part: Choice | Range) -> BaseDistribution:
    if isinstance(part, Choice):
        return CategoricalDistribution(part.values)
    if part.whole:
        return IntDistribution(int(part.low), int(part.high), log=part.log, step=int(part.step or 1))
    return FloatDistribution(part.low, part.high, log=part.log, step=part.step)
