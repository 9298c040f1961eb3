"""All checks of a report, made from what was read and scored.

Promises: pure; the order is that in which causes are best looked into, pictures before answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from canopy import contract
from trainer import metrics
from trainer.report import data_checks, duplicates, model_checks
from trainer.report.check import Check
from trainer.report.looks import Looks
from trainer.report.statistics import Calibration

if TYPE_CHECKING:  # it brings TensorFlow, which no check needs
    from trainer.report.split import Scored


@dataclass(frozen=True)
class Evidence:
    """What the checks are made from."""

    split: str  # the one evaluated
    facts: Mapping[str, Any]  # canopy.json's content
    tags: tuple[str, ...]  # the vocabulary
    trained_on: str  # fingerprint of the model's data set, "" where it names none
    thresholds: Sequence[float]  # one a class
    constant_tags: Sequence[str]  # the best constant answer
    scored: Scored  # the split and the model's scores
    answered: npt.NDArray[np.bool_]  # [rows, classes]
    others: Looks  # of training pictures
    seen_by_others: Sequence[str]  # names of flat pictures in which Pillow sees something
    calibration: Calibration


def run(given: Evidence) -> list[Check]:
    """Makes every check that applies."""
    labels, tags, looks = given.scored.labels, given.tags, given.scored.looks
    counts = labels.sum(axis=0).tolist()
    train = given.facts["splits"].get("train", {"records": 0, "tags": {}})
    train_counts = [train["tags"].get(tag, 0) for tag in tags]
    has_other = given.split != "train" and train["records"] > 0  # a train split beside the one evaluated
    pictures = given.facts["images"]
    constant = np.broadcast_to([tag in given.constant_tags for tag in tags], labels.shape)
    default = metrics.apply_thresholds(given.scored.scores, [contract.DEFAULT_THRESHOLD] * len(tags))
    checks = [
        model_checks.beats_constant(
            *(metrics.fbeta_rows(answered, labels) for answered in (given.answered, constant, default))
        ),
        data_checks.dead_pictures(looks.flat, looks.names, given.split, given.seen_by_others),
    ]
    if len(given.others.names):
        checks.append(data_checks.dead_pictures(given.others.flat, given.others.names, "train"))
    checks += [
        data_checks.suspicious_pictures(
            pictures["suspicious"],
            pictures["written"],
            pictures["suspicious_names"],
        ),
        model_checks.constant_answers(given.answered, labels, tags),
        model_checks.constant_scores(given.scored.scores, labels, tags),
        model_checks.never_answered(given.answered, labels, tags),
        model_checks.thresholds_at_edge(given.thresholds, counts, tags),
        data_checks.known_data(given.split, given.trained_on, str(given.facts["fingerprint"]), has_other),
    ]
    if has_other:
        twins = duplicates.find(looks, given.others)
        checks += data_checks.duplicates(twins.exact, twins.near, len(looks.names), len(given.others.names))
        checks += [
            data_checks.tags_differ(counts, len(labels), train_counts, train["records"], tags),
            data_checks.pixels_differ(looks.measures, given.others.measures),
        ]
    checks += [
        data_checks.absent_tags(counts, train_counts if has_other else None, tags, given.split),
        model_checks.calibrated(given.calibration),
    ]
    return checks
