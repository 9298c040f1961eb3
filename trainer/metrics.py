"""The score and all that surrounds it, in plain NumPy over all rows.

Promises: no TensorFlow, no state; every function is a formula over scores float[rows, classes] and labels
{0, 1}[rows, classes] of at least one row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from canopy.contract import BETA, DEFAULT_THRESHOLD

Array = npt.NDArray[np.float64]
Bits = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]

GRID = np.round(np.arange(0.01, 1.0, 0.01), 2)  # thresholds tried
ODDS = np.log(GRID / (1 - GRID))  # their log-odds: equal steps of these are equal steps of belief
SMOOTHING = 0.4  # standard deviation, in log-odds, over which the score is averaged: rows are a sample
FROM_DEFAULT = np.abs(ODDS - np.log(DEFAULT_THRESHOLD / (1 - DEFAULT_THRESHOLD)))  # distance of each from 0.2
ROUNDS = 3  # passes over the tags while thresholds are tuned


@dataclass(frozen=True)
class TagMetrics:
    """How one tag fares at its threshold."""

    tag: str  # its name
    support: int  # rows that have it
    threshold: float  # score from which on it is answered
    precision: float  # 0 where it was never answered
    recall: float  # 0 where no row has it
    fbeta: float  # over all rows of this tag
    average_precision: float  # area under precision over recall; nan where no row has it


def fbeta_of_counts(hits: Counts, positives: Counts, answered: Counts) -> Array:
    """(1 + b^2) hits / (b^2 positives + answered), elementwise, 0 where the denominator is 0.

    Args:
        hits: int[...], answered and true.
        positives: int[...], true; all three are broadcast against each other.
        answered: int[...].
    """
    result: Array = (1 + BETA**2) * hits / np.maximum(BETA**2 * positives + answered, 1e-12)
    return result


def fbeta_rows(predicted: npt.ArrayLike, labels: npt.ArrayLike) -> Array:
    """F-beta of each row: (1 + b^2) tp / (b^2 positives + answered), 0 for a row with neither.

    Averaged over rows this is the Planet competition's score (F2 averaged over samples).

    Args:
        predicted: {0, 1}[rows, classes], what was answered.
        labels: {0, 1}[rows, classes], what is true.

    Returns:
        float64[rows].
    """
    answered, true = np.asarray(predicted, bool), np.asarray(labels, bool)
    hits = (answered & true).sum(axis=1)
    return fbeta_of_counts(hits, true.sum(axis=1), answered.sum(axis=1))


def fbeta(predicted: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """F-beta averaged over rows; see `fbeta_rows`."""
    return float(fbeta_rows(predicted, labels).mean())


def cross_entropy_rows(scores: npt.ArrayLike, labels: npt.ArrayLike) -> Array:
    """Binary cross-entropy of each row, averaged over the tags.

    Args:
        scores: float[rows, classes] in 0..1.
        labels: {0, 1}[rows, classes].

    Returns:
        float64[rows].
    """
    given, true = np.asarray(scores), np.asarray(labels, bool)
    total: Array = np.zeros(len(given))
    for tag in range(given.shape[1]):  # one at a time: all together would be several such tables
        clipped = np.clip(given[:, tag].astype(np.float64), 1e-7, 1 - 1e-7)
        total -= np.log(np.where(true[:, tag], clipped, 1 - clipped))
    total /= given.shape[1]
    return total


def apply_thresholds(scores: npt.ArrayLike, thresholds: npt.ArrayLike) -> Bits:
    """Answers each tag whose score reaches its threshold, and never nothing.

    A row in which no score does gets the tag that comes nearest: the largest score over threshold.

    Args:
        scores: float[rows, classes] in 0..1.
        thresholds: float[classes] in 0..1.

    Returns:
        bool[rows, classes], at least one True a row.
    """
    given, limits = np.asarray(scores), np.asarray(thresholds, np.float64)
    answered: Bits = given >= limits
    empty = np.flatnonzero(~answered.any(axis=1))
    nearest = (given[empty] / np.maximum(limits, 1e-9)).argmax(axis=1)
    answered[empty, nearest] = True
    return answered


def tune_thresholds(scores: npt.ArrayLike, labels: npt.ArrayLike) -> Array:
    """Finds a threshold a tag that makes the row-averaged F-beta large on rows that are not these.

    Coordinate ascent over `GRID` from 0.2: one tag at a time, the others held, `ROUNDS` times. The best on a
    few thousand rows is partly their noise: on Planet's 32 px chips the very best lost 0.0015 to 0.2 for all
    on other rows. So the score is averaged over nearby thresholds (a Gaussian of `SMOOTHING`), and of the
    thresholds that are within one standard error of the best (of the rows' paired differences; compare
    Breiman et al., Classification and Regression Trees, 1984, section 3.4.3) the one nearest to 0.2 is
    taken. A tag that no row has keeps 0.2. Where the result is worse than 0.2 for all on these very rows, it
    is 0.2 for all.

    Args:
        scores: float[rows, classes].
        labels: {0, 1}[rows, classes].

    Returns:
        float64[classes].
    """
    given, true = np.asarray(scores), np.asarray(labels, bool).T
    # By tag and row: how many thresholds of the grid the score reaches.
    reached = np.array([np.searchsorted(GRID, column, side="right").astype(np.uint8) for column in given.T])
    positives = true.sum(axis=0)
    at = np.full(len(true), FROM_DEFAULT.argmin())  # of each tag's threshold, its place in the grid
    answered = reached > at[:, None]
    hits, answers = (answered & true).sum(axis=0), answered.sum(axis=0)  # by row, over all tags
    scored_at_default = fbeta_of_counts(hits, positives, answers).mean()
    for _ in range(ROUNDS):
        before = at.copy()
        for tag in np.flatnonzero(true.any(axis=1)):
            answered = reached[tag] > at[tag]
            hits -= answered & true[tag]
            answers -= answered
            gain = fbeta_of_counts(hits + true[tag], positives, answers + 1)
            gain -= fbeta_of_counts(hits, positives, answers)
            at[tag] = _nearest_to_default(gain, reached[tag])
            answered = reached[tag] > at[tag]
            hits += answered & true[tag]
            answers += answered
        if np.array_equal(before, at):
            break
    worse = fbeta_of_counts(hits, positives, answers).mean() < scored_at_default
    return np.full(len(true), DEFAULT_THRESHOLD) if worse else GRID[at]


def _shares_passed() -> Array:
    """Of what is near a threshold, the share that a score reaches: [thresholds it reaches, threshold]."""
    nearby = np.exp(-0.5 * ((ODDS[:, None] - ODDS[None, :]) / SMOOTHING) ** 2)
    nearby /= nearby.sum(axis=0)
    return np.vstack([np.zeros(len(GRID)), nearby.cumsum(axis=0)])


_PASSED = _shares_passed()


def _nearest_to_default(gain: Array, reached: npt.NDArray[np.uint8]) -> int:
    """Of the thresholds within one standard error of the best, the one nearest to 0.2.

    Args:
        gain: float64[rows], what each row's F-beta gains where the tag is answered.
        reached: uint8[rows], how many thresholds of the grid each row's score reaches.

    Returns:
        Its place in the grid.
    """
    # A row's score at a threshold depends on these two alone: rows that reach the same are added up.
    gains, squares = (np.bincount(reached, each, len(_PASSED)) / len(gain) for each in (gain, gain**2))
    behind = _PASSED[:, [(gains @ _PASSED).argmax()]] - _PASSED
    mean = gains @ behind
    error = np.sqrt(np.maximum(squares @ behind**2 - mean**2, 0) / len(gain))
    return int(np.where(mean <= error + 1e-12, FROM_DEFAULT, np.inf).argmin())


def best_constant(labels: npt.ArrayLike) -> tuple[Bits, float]:
    """The set of tags that scores best when it is answered for every row: what a blind model can reach.

    Exact: among sets of k tags the score is a sum over tags, each counting (1 + b^2) / (b^2 p + k) in every
    row of p positives that has it, so the best of them are the k that count most (Waegeman et al., On the
    Bayes-Optimality of F-Measure Maximizers, JMLR 15, 2014, with the rows as the distribution).

    Args:
        labels: {0, 1}[rows, classes].

    Returns:
        bool[classes] and its row-averaged F-beta; of equally good sets the smallest.
    """
    true = np.asarray(labels, bool)
    chosen, score = np.zeros(true.shape[1], bool), 0.0
    positives, kind = np.unique(true.sum(axis=1), return_inverse=True)
    rows = np.array([true[kind == i].sum(axis=0) for i in range(len(positives))])  # [kinds, classes]
    for size in range(1, len(chosen) + 1):
        counts = (1 + BETA**2) / (BETA**2 * positives + size) @ rows / len(true)
        most = np.argsort(-counts, kind="stable")[:size]
        if counts[most].sum() > score + 1e-12:
            score = float(counts[most].sum())
            chosen = np.isin(np.arange(len(chosen)), most)
    return chosen, score


def average_precision(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Average precision of one tag: the sum of precision times the step in recall, ties taken together.

    Args:
        scores: float[rows].
        labels: {0, 1}[rows].

    Returns:
        In 0..1, nan where no row is positive.
    """
    if not np.any(labels):
        return float("nan")
    recall, precision = precision_recall(scores, labels)
    return float((np.diff(recall, prepend=0) * precision).sum())


def precision_recall(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Array, Array]:
    """Recall and precision of one tag at each score that occurs, ties taken together.

    Args:
        scores: float[rows].
        labels: {0, 1}[rows], at least one 1.

    Returns:
        Recall and precision, float64[points] each, recall ascending, up to the first point with recall 1.
    """
    given, true = np.asarray(scores, np.float64), np.asarray(labels, bool)
    order = np.argsort(-given, kind="stable")
    hits = np.cumsum(true[order])
    last_of_tie = np.append(np.diff(given[order]) != 0, True)
    found, ranks = hits[last_of_tie], np.flatnonzero(last_of_tie) + 1
    end = int(np.searchsorted(found, hits[-1])) + 1
    return found[:end] / hits[-1], found[:end] / ranks[:end]


def per_tag(
    scores: npt.ArrayLike, labels: npt.ArrayLike, thresholds: npt.ArrayLike, tags: tuple[str, ...]
) -> list[TagMetrics]:
    """One `TagMetrics` a tag, in the order of the vocabulary.

    Args:
        scores: float[rows, classes].
        labels: {0, 1}[rows, classes].
        thresholds: float[classes].
        tags: the class names.
    """
    given, true = np.asarray(scores), np.asarray(labels, bool)
    limits = np.asarray(thresholds, np.float64)
    answered = apply_thresholds(given, limits)
    hits, positives, answers = (answered & true).sum(0), true.sum(0), answered.sum(0)
    scored = fbeta_of_counts(hits, positives, answers)
    return [
        TagMetrics(
            tag=tag,
            support=int(positives[i]),
            threshold=float(limits[i]),
            precision=float(hits[i] / answers[i]) if answers[i] else 0.0,
            recall=float(hits[i] / positives[i]) if positives[i] else 0.0,
            fbeta=float(scored[i]),
            average_precision=average_precision(given[:, i], true[:, i]),
        )
        for i, tag in enumerate(tags)
    ]
