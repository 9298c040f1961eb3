"""Everything that the report shows, from a scored split.

Promises: of the records only a few pictures are read once more; what is no number is None, as JSON has none.
"""

from __future__ import annotations

import math
import platform
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from canopy import __version__
from canopy.model_info import ModelInfo
from trainer import metrics
from trainer.data_info import DataInfo
from trainer.report import all_checks, pictures, statistics, training
from trainer.report.check import Check
from trainer.report.looks import Looks
from trainer.report.page import Findings
from trainer.report.split import Scored, pick
from trainer.report.statistics import Calibration

FLAT_OPENED = 20  # pictures of one value that Pillow has a look at


def gather(
    model: ModelInfo,
    info: DataInfo,
    split: str,
    *,
    scored: Scored,
    others: Looks,
    summary: dict[str, Any],
) -> Findings:
    """Draws the conclusions from a scored split, and picks the pictures to show.

    Args:
        model: whose answers they are.
        info: the data set.
        split: the one evaluated.
        scored: the split and the model's scores.
        others: training pictures to compare with.
        summary: the metrics, as `Validation` has them.

    Raises:
        UserError, TryAgainError: where a record cannot be read any more.
    """
    answered = metrics.apply_thresholds(scored.scores, model.thresholds)
    rows = metrics.fbeta_rows(answered, scored.labels)
    calibration = statistics.calibration(scored.scores, scored.labels)
    worst, best = pictures.galleries(rows, scored.scores, scored.labels)
    flat = np.flatnonzero(scored.looks.flat)[:FLAT_OPENED].tolist()
    encoded = pick(info, split, {*worst, *best, *flat})
    checks = all_checks.run(
        all_checks.Evidence(
            split=split,
            facts=info.facts,
            tags=info.vocabulary,
            trained_on=_trained_on(model),
            thresholds=model.thresholds,
            constant_tags=summary["constant_tags"],
            scored=scored,
            answered=answered,
            others=others,
            seen_by_others=[scored.names[i] for i in flat if pictures.pillow_sees(encoded[i])],
            calibration=calibration,
        )
    )

    def shown(i: int) -> pictures.Picture:
        return pictures.picture(
            name=scored.names[i],
            encoded=encoded[i],
            f2=float(rows[i]),
            scores=scored.scores[i],
            labels=scored.labels[i],
            answered=answered[i],
            tags=info.vocabulary,
        )

    return Findings(
        document={
            "model": model.folder,
            "data": info.folder,
            "split": split,
            "fingerprint": info.fingerprint,
            **summary,
            **_figures(rows, calibration, checks),
        },
        checks=checks,
        tags=info.vocabulary,
        scores=scored.scores,
        labels=scored.labels,
        thresholds=model.thresholds,
        calibration=calibration,
        confusions=statistics.confusions(answered, scored.labels),
        training=training.read(model.folder),
        worst=[shown(i) for i in worst],
        best=[shown(i) for i in best],
        facts=info.facts,
        config=_object(model, "config"),
        versions={
            "Canopy that preprocessed": str(info.facts.get("canopy_version", "not noted")),
            "Canopy that trained": str(model.document.get("canopy_version", "not noted")),
            "Canopy that evaluated": __version__,
            "TensorFlow": tf.__version__,
            "NumPy": np.__version__,
            "Python": platform.python_version(),
        },
    )


def _trained_on(model: ModelInfo) -> str:
    """The fingerprint of the data set that the model was trained on, empty where none is told."""
    found = _object(model, "dataset").get("fingerprint")
    return found if isinstance(found, str) else ""


def _object(model: ModelInfo, key: str) -> dict[str, Any]:
    """What model.json tells under a key that nothing depends on, empty where that is no object."""
    found = model.document.get(key)
    return found if isinstance(found, dict) else {}


def _figures(rows: npt.NDArray[np.float64], calibration: Calibration, checks: list[Check]) -> dict[str, Any]:
    """What metrics.json says besides the metrics."""
    return {
        "f2_interval": _number(statistics.mean_interval(rows).half_width),
        "calibration": {
            "expected_calibration_error": calibration.error,
            "counts": calibration.counts,
            "scores": list(map(_number, calibration.scores)),
            "shares": list(map(_number, calibration.shares)),
        },
        "checks": [
            {"name": c.name, "verdict": c.verdict, "title": c.title, "sentence": c.sentence} for c in checks
        ],
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
