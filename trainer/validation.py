"""Everything that is said about scores against labels: during training, in model.json and in the report.

Promises: one place computes it, over all rows, in NumPy; what is not a number is None, as JSON has none.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from canopy.contract import DEFAULT_THRESHOLD
from trainer import metrics


@dataclass(frozen=True)
class Validation:
    """Metrics over a split."""

    summary: dict[str, Any]  # what is logged and handed on
    thresholds: list[float]  # one a class

    @staticmethod
    def of(scores: Any, labels: Any, tags: tuple[str, ...], thresholds: Any = None) -> Validation:
        """Computes the metrics.

        Args:
            scores: float[rows, classes].
            labels: {0, 1}[rows, classes].
            tags: the class names.
            thresholds: float[classes]; None tunes them on these very rows.
        """
        if thresholds is None:
            thresholds = metrics.tune_thresholds(scores, labels)
        chosen, constant = metrics.best_constant(labels)
        summary = {
            "records": len(labels),
            "loss": float(metrics.cross_entropy_rows(scores, labels).mean()),
            "f2": metrics.fbeta(metrics.apply_thresholds(scores, thresholds), labels),
            "f2_at_0.2": metrics.fbeta(
                metrics.apply_thresholds(scores, np.full(len(tags), DEFAULT_THRESHOLD)), labels
            ),
            "f2_constant": constant,
            "constant_tags": [tag for tag, taken in zip(tags, chosen, strict=True) if taken],
            "absent_tags": [
                tag for tag, there in zip(tags, np.any(labels, axis=0), strict=True) if not there
            ],
            "tags": {
                row.tag: _jsonable(asdict(row)) for row in metrics.per_tag(scores, labels, thresholds, tags)
            },
        }
        return Validation(summary, [float(each) for each in thresholds])

    def sentence(self) -> str:
        """The scores in one line."""
        found = self.summary
        return (  # digits of the loss that tell: the mean over thousands of tags, most of them rare, is 0.01
            f"loss {found['loss']:#.4g}, F2 {found['f2']:.4f} ({found['f2_at_0.2']:.4f} at 0.2, "
            f"constant tags {found['f2_constant']:.4f})"
        )


def _jsonable(row: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no nan: null says that there is no such number."""
    return {k: None if np.isnan(v) else v for k, v in row.items() if k != "tag"}
