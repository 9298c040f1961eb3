"""Why a model might always say the same: the checks of its answers, scores and thresholds.

Promises: every check is a pure function over arrays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from canopy.contract import DEFAULT_THRESHOLD
from canopy.phrases import named, several
from trainer import metrics
from trainer.report import statistics
from trainer.report.check import Check, Verdict
from trainer.report.statistics import Calibration

# A model is constant if this share of the images get one answer, and the share that get others is less than
# `OTHERS` of what it should be: where tags are rare, most labels are one set, too.
SAME_ANSWER, OTHERS = 0.95, 1 / 3
DULL = 0.02  # scores of a tag that vary by less than this share of its labels' deviation are constant
LITTLE = 0.05  # of F2: a model that is surely no further above one answer for all has learned nothing
FEW = 5  # images below which they say nothing about a model; with a tag, or without it: about the tag
MISCALIBRATED = 0.1  # expected calibration error worth a look: scores are off by ten points on average


def beats_constant(rows: npt.ArrayLike, constant_rows: npt.ArrayLike, default_rows: npt.ArrayLike) -> Check:
    """Whether F2 is above that of the best constant answer, by more than chance.

    Args:
        rows: float[rows], F2 of each image.
        constant_rows: float[rows], F2 of each image when all get the best constant answer.
        default_rows: float[rows], F2 of each image at the default threshold for every tag.
    """
    given, constant = np.asarray(rows, np.float64), np.asarray(constant_rows, np.float64)
    default = np.asarray(default_rows, np.float64)
    above = statistics.mean_interval(given - constant)
    gap = f"{above.mean:+.4f} ± {above.half_width:.4f}"
    figures = f"F2 {given.mean():.4f} against {constant.mean():.4f}"

    def check(verdict: Verdict, told: str) -> Check:
        return Check("beats_constant", "Better than one answer for all", verdict, told)

    if given.size < FEW:
        told = f"{figures} on {several(given.size, 'image')}: too few to compare; evaluate a larger split."
        return check("look", told)
    if given.min() == constant.min() == 1:
        return check("look", f"{figures}: one answer is right for every image, and nothing can be better.")
    if above.low > 0:
        return check("pass", f"{figures} of the best constant answer, a difference of {gap}.")
    if statistics.mean_interval(default - constant).low > 0:
        told = (
            f"{figures} of the best constant answer ({gap}), but {default.mean():.4f} at threshold "
            f"{DEFAULT_THRESHOLD} for every tag: the thresholds of model.json spoil good scores."
        )
        return check("fail", told)
    if above.mean > 0 and above.high > LITTLE:
        told = (
            f"{figures} of the best constant answer ({gap}): {given.size} images are too few to show a "
            "difference; evaluate a larger split."
        )
        return check("look", told)
    told = (
        f"{figures} of the best constant answer ({gap}), so the model has learned nothing from the pictures: "
        "settle the other failed checks first, then train longer or with pretrained weights."
    )
    return check("fail", told)


def constant_answers(answered: npt.ArrayLike, labels: npt.ArrayLike, tags: Sequence[str]) -> Check:
    """Whether the images get different answers.

    Args:
        answered: {0, 1}[rows, classes].
        labels: {0, 1}[rows, classes].
        tags: the class names.
    """
    given, true = np.asarray(answered, bool), np.asarray(labels, bool)
    share, answer = _most_frequent(given)
    due, _ = _most_frequent(true)
    said = named([tag for tag, taken in zip(tags, answer, strict=True) if taken])
    found = f"The most frequent answer ({said}) goes to {share:.0%} of the images"
    title = "Different images, different answers"
    few = 1 - share < OTHERS * (1 - due)
    if len(given) >= FEW and share >= SAME_ANSWER and due < SAME_ANSWER and few:
        told = (
            f"{found}, while the most frequent set of labels belongs to {due:.0%}: the model always says the "
            "same, so look at the checks of pictures and at the training loss."
        )
        return Check("constant_answers", title, "fail", told)
    if share > max(0.5, 1.5 * due):
        told = (
            f"{found}, while the most frequent set of labels belongs to {due:.0%}: the model separates "
            "images too little, so train longer, or lower the learning rate if the loss does not fall."
        )
        return Check("constant_answers", title, "look", told)
    return Check(
        "constant_answers", title, "pass", f"{found}; the most frequent set of labels belongs to {due:.0%}."
    )


def constant_scores(scores: npt.ArrayLike, labels: npt.ArrayLike, tags: Sequence[str]) -> Check:
    """Whether each tag's score moves from image to image.

    Args:
        scores: float[rows, classes].
        labels: {0, 1}[rows, classes].
        tags: the class names.
    """
    deviation = np.asarray(scores, np.float64).std(axis=0)
    true = np.asarray(labels, bool)
    due = true.std(axis=0)
    judged = due > 0
    low = judged & (deviation < DULL * due)
    dull = [tag for tag, hardly in zip(tags, low, strict=True) if hardly]
    title = "Scores that move with the picture"
    if not judged.any():
        told = "No tag differs from image to image in the labels, so there is nothing to compare scores with."
        return Check("constant_scores", title, "look", told)
    if not dull:
        least = float((deviation[judged] / due[judged]).min())
        told = f"Every tag's score varies over the images, by at least {least:.0%} of its labels' deviation."
        return Check("constant_scores", title, "pass", told)
    # Of a long tail most tags come once or twice, and say nothing about a network that knows the others.
    frequent = _judged(true)
    most = (low & frequent).sum() > frequent.sum() / 2
    told = (
        f"The score of {len(dull)} of {judged.sum()} tags hardly changes from image to image "
        f"({named(dull)}): "
    )
    told += (
        "the network sees no difference between pictures, so check what it is fed before you train again."
        if most
        else "the model knows only how frequent they are, so give it more examples of them or more epochs."
    )
    return Check("constant_scores", title, "fail" if most else "look", told)


def never_answered(answered: npt.ArrayLike, labels: npt.ArrayLike, tags: Sequence[str]) -> Check:
    """Whether every tag that occurs is answered for some image, and none for all.

    Args:
        answered: {0, 1}[rows, classes].
        labels: {0, 1}[rows, classes].
        tags: the class names.
    """
    given, true = np.asarray(answered, bool), np.asarray(labels, bool)
    never = [tag for i, tag in enumerate(tags) if true[:, i].any() and not given[:, i].any()]
    always = [tag for i, tag in enumerate(tags) if given[:, i].all() and not true[:, i].all()]
    if len(given) == 1:  # every answer is one for all
        always = []
    title = "Every tag answered for some images"
    if not never and not always:
        told = "Every tag that occurs is answered for at least one image, and none for all."
        return Check("never_answered", title, "pass", told)
    parts = [f"never answered: {named(never)}"] if never else []
    parts += [f"answered for every image: {named(always)}"] if always else []
    alike = len(never) + len(always)
    judged = _judged(true)
    same = judged & (given.all(axis=0) | ~given.any(axis=0))
    return Check(
        "never_answered",
        title,
        "fail" if same.sum() > judged.sum() / 2 else "look",
        f"{alike} of {len(tags)} tags do not depend on the picture ({'; '.join(parts)}): they "
        "need more examples, more epochs or another threshold.",
    )


def thresholds_at_edge(thresholds: Sequence[float], counts: Sequence[int], tags: Sequence[str]) -> Check:
    """Whether a threshold stands at the end of the grid on which it was tuned.

    Args:
        thresholds: one a tag.
        counts: records of the split with each tag.
        tags: the class names.
    """
    low, high = float(metrics.GRID[0]), float(metrics.GRID[-1])
    edge = [
        f"{tag} {limit:.2f}"
        for tag, limit, count in zip(tags, thresholds, counts, strict=True)
        if count and (limit <= low or limit >= high)
    ]
    title = "Thresholds within their grid"
    if not edge:
        told = f"All thresholds lie between the ends of the grid, {low:.2f} and {high:.2f}."
        return Check("thresholds_at_edge", title, "pass", told)
    told = (
        f"{len(edge)} of {len(tags)} thresholds stand at an end of the grid ({named(edge)}), where a tag is "
        "answered for nearly all images or none: its scores do not separate, or too few examples chose them."
    )
    return Check("thresholds_at_edge", title, "look", told)


def calibrated(found: Calibration) -> Check:
    """Whether scores come true as often as they say."""
    title, figure = "Scores that can be read as probabilities", f"{found.error:.3f}"
    if found.error <= MISCALIBRATED:
        return Check("calibrated", title, "pass", f"The expected calibration error is {figure}.")
    told = (
        f"The expected calibration error is {figure}: use the tuned thresholds, and read no score as a "
        "probability before it is calibrated."
    )
    return Check("calibrated", title, "look", told)


def _judged(labels: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The tags that enough images have, and enough lack, to say something about a model: bool[classes]."""
    judged: npt.NDArray[np.bool_] = np.minimum(labels.sum(axis=0), (~labels).sum(axis=0)) >= FEW
    return judged


def _most_frequent(rows: npt.NDArray[np.bool_]) -> tuple[float, npt.NDArray[np.bool_]]:
    """The share of the rows, at least one, that equal the most frequent one, and that row."""
    # By their bits, and not by `np.unique`, which sorts rows by comparing them value by value.
    answer, count = Counter(map(bytes, np.packbits(rows, axis=1))).most_common(1)[0]
    bits = np.unpackbits(np.frombuffer(answer, np.uint8), count=rows.shape[1])
    return count / len(rows), bits.astype(bool)
