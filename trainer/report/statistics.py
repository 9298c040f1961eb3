"""The figures behind the report that are not the score itself: tests, intervals, calibration, confusions.

Promises: plain NumPy, no state; each function names the source of its formula.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer import metrics
from trainer.metrics import Array, Counts

Z_95 = 1.959964  # two-sided 95% point of the standard normal distribution
BINS = 10  # of the score, for calibration: Guo et al. use 15 for some 10,000 images, and splits can be small


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% confidence interval."""

    mean: float
    half_width: float  # infinite where fewer than two values are known

    @property
    def low(self) -> float:
        """The lower end."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """The upper end."""
        return self.mean + self.half_width


@dataclass(frozen=True)
class Calibration:
    """How often a score comes true, in bins of equal width."""

    counts: list[int]  # scores in each bin
    scores: list[float]  # their mean; nan in an empty bin
    shares: list[float]  # share of them whose tag is true; nan in an empty bin
    error: float  # expected calibration error, 0 to 1


@dataclass(frozen=True)
class Confusions:
    """What is answered wrongly where something is missed."""

    pairs: Counts  # [missed tag, wrongly answered tag]: images with both
    missed: Counts  # [tags]: images in which it is missed
    alone: Counts  # [tags]: of these, images without any wrong answer
    wrong: Counts  # [tags]: images in which it is wrongly answered
    stray: Counts  # [tags]: of these, images in which nothing is missed
    only_strays: int  # images with wrong answers in which nothing is missed


def mean_interval(values: npt.ArrayLike) -> Interval:
    """The mean and its 95% interval: 1.96 standard deviations over the root of their number.

    The normal approximation (central limit theorem); rows are taken as independent.

    Args:
        values: float[rows].
    """
    given = np.asarray(values, np.float64)
    if given.size < 2:
        return Interval(float(given.mean()), float("inf"))
    return Interval(float(given.mean()), float(Z_95 * given.std(ddof=1) / np.sqrt(given.size)))


def fisher_exact(hits: int, rows: int, other_hits: int, other_rows: int) -> float:
    """Fisher's exact test, two-sided: how likely two shares differ as much by chance.

    Sums the hypergeometric probabilities of all tables with these margins that are no more likely than the
    one found (R. A. Fisher, Statistical Methods for Research Workers, section 21.02; two-sided as in R's
    `fisher.test`, its relative tolerance of 1e-7 included).

    Args:
        hits: rows of the first sample that have the property.
        rows: size of the first sample.
        other_hits: of the second.
        other_rows: size of the second.

    Returns:
        The p-value, 0 to 1.
    """
    total, positives = rows + other_rows, hits + other_hits
    factorial = _log_factorials(total)

    def choose(n: int, k: Counts) -> Array:
        result: Array = factorial[n] - factorial[k] - factorial[n - k]
        return result

    possible = np.arange(max(0, positives - other_rows), min(rows, positives) + 1)
    logs = choose(rows, possible) + choose(other_rows, positives - possible)
    logs = logs - choose(total, np.asarray(positives))
    found = logs[hits - possible[0]]
    return float(np.exp(logs[logs <= found + 1e-7]).sum())


@functools.lru_cache(maxsize=1)
def _log_factorials(most: int) -> Array:
    """The logarithms of 0! to `most`!, which every term of the distribution is made of.

    Kept, as it is the same for each of a split's tags: of millions of records it takes a tenth of a second.
    """
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1)))])


def kolmogorov_smirnov(values: npt.ArrayLike, others: npt.ArrayLike) -> tuple[float, float]:
    """The two-sample Kolmogorov-Smirnov test: whether two samples have one distribution.

    The p-value is the asymptotic one, 2 sum (-1)^(k-1) exp(-2 k^2 l^2) with Stephens' correction
    l = (r + 0.12 + 0.11 / r) d and r = sqrt(n m / (n + m)) (M. A. Stephens, J. R. Stat. Soc. B 32, 1970).

    Args:
        values: float[n].
        others: float[m].

    Returns:
        The largest distance d between the two distribution functions, and the p-value.
    """
    first, second = np.sort(np.asarray(values, np.float64)), np.sort(np.asarray(others, np.float64))
    every = np.concatenate([first, second])
    below = np.searchsorted(first, every, side="right") / first.size
    distance = float(np.abs(below - np.searchsorted(second, every, side="right") / second.size).max())
    root = np.sqrt(first.size * second.size / (first.size + second.size))
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.3:  # the series converges slowly there, and the p-value is 1 to nine digits
        return distance, 1.0
    k = np.arange(1, 101)
    series = 2 * ((-1.0) ** (k - 1) * np.exp(-2 * (k * scaled) ** 2)).sum()
    return distance, float(np.clip(series, 0.0, 1.0))


def holm(p_values: npt.ArrayLike) -> Array:
    """Corrects p-values for their number (S. Holm, Scandinavian Journal of Statistics 6, 1979).

    Args:
        p_values: float[tests].

    Returns:
        float64[tests], adjusted: to be held against the level that a single test would have.
    """
    given = np.asarray(p_values, np.float64)
    order = np.argsort(given, kind="stable")
    steps = np.maximum.accumulate(given[order] * np.arange(given.size, 0, -1))
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def calibration(scores: npt.ArrayLike, labels: npt.ArrayLike) -> Calibration:
    """Expected calibration error: sum over bins of n_b / n |share that is true - mean score|.

    Equation 3 of C. Guo et al., On Calibration of Modern Neural Networks (ICML 2017), with every pair of
    image and tag as one binary prediction, and the score itself as its confidence.

    Args:
        scores: float[rows, classes] in 0..1.
        labels: {0, 1}[rows, classes].
    """
    counts, given_sums, true_sums = np.zeros(BINS, np.int64), np.zeros(BINS), np.zeros(BINS)
    columns = zip(np.asarray(scores).T, np.asarray(labels).T, strict=True)
    for given, true in columns:  # a tag at a time: all together would be several such tables
        which = np.minimum((given.astype(np.float64) * BINS).astype(np.int64), BINS - 1)
        counts += np.bincount(which, minlength=BINS)
        given_sums += np.bincount(which, given, BINS)
        true_sums += np.bincount(which, true, BINS)
    with np.errstate(invalid="ignore"):
        means, shares = given_sums / counts, true_sums / counts
    filled = counts > 0
    error = (counts[filled] * np.abs(shares - means)[filled]).sum() / counts.sum()
    return Calibration(counts.tolist(), means.tolist(), shares.tolist(), float(error))


def confusions(answered: npt.ArrayLike, labels: npt.ArrayLike) -> Confusions:
    """Counts which tag was wrongly answered in images in which another was missed.

    Args:
        answered: {0, 1}[rows, classes].
        labels: {0, 1}[rows, classes].
    """
    given, true = np.asarray(answered, bool), np.asarray(labels, bool)
    missed, wrong = true & ~given, given & ~true
    nothing_wrong, nothing_missed = ~wrong.any(axis=1), ~missed.any(axis=1)
    return Confusions(
        # As floating-point numbers: NumPy multiplies them by a library, and whole ones by a loop.
        pairs=(missed.astype(np.float64).T @ wrong.astype(np.float64)).astype(np.int64),
        missed=missed.sum(axis=0),
        alone=missed[nothing_wrong].sum(axis=0),
        wrong=wrong.sum(axis=0),
        stray=wrong[nothing_missed].sum(axis=0),
        only_strays=int((nothing_missed & ~nothing_wrong).sum()),
    )


def fbeta_over_thresholds(scores: npt.ArrayLike, labels: npt.ArrayLike) -> Array:
    """F-beta of one tag over all rows at each threshold of `metrics.GRID`.

    Of the tag alone, without the rows that get it because they got no other.

    Args:
        scores: float[rows].
        labels: {0, 1}[rows].

    Returns:
        float64[thresholds].
    """
    given, true = np.asarray(scores, np.float64), np.asarray(labels, bool)
    everything, hits = np.sort(given), np.sort(given[true])
    answered = given.size - np.searchsorted(everything, metrics.GRID, side="left")
    found = hits.size - np.searchsorted(hits, metrics.GRID, side="left")
    return metrics.fbeta_of_counts(found, np.asarray(hits.size), answered)
