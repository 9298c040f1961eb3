"""The report's page: everything that was found, in one file.

Promises: nothing in it refers to the network, and its own policy forbids a browser to ask; names and tags are
escaped; it says the same without scripts.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import markupsafe
import numpy as np
import numpy.typing as npt

from canopy.phrases import several
from trainer import metrics
from trainer.report import plots, statistics
from trainer.report.check import Check
from trainer.report.pictures import Picture
from trainer.report.statistics import Calibration, Confusions
from trainer.report.training import Curves

MOST_PANELS = 40  # tags with plots of their own: the page stays below a few megabytes
MOST_ROWS = 60  # tags of a table that stands as it is: below one of thousands nothing would be found
MOST_CONFUSED = 20  # rows and columns of the table of confusions
MOST_PAIRS = 3  # of tags, named above that table
MOST_LISTED = 20  # tags below a picture that are right, missed, wrong: a bad model answers with hundreds
# A word with a letter of a script written from right to left, or with a control that turns writing round
# (Unicode Standard Annex 9, sections 2 and 3.2; the blocks are those of its DerivedBidiClass.txt).
_LEFTWARD = (
    r"[^\s,;()]*[\u0590-\u08ff\u200f\u202a-\u202e\u2066-\u2069\ufb1d-\ufdff\ufe70-\ufefe"
    r"\U00010800-\U00010fff\U0001e800-\U0001efff][^\s,;()]*"
)


@dataclass(frozen=True)
class Findings:
    """What the page shows."""

    document: Mapping[str, Any]  # metrics.json's content
    checks: Sequence[Check]  # in the order in which they were made
    tags: Sequence[str]  # the vocabulary
    scores: npt.NDArray[np.float32]  # [rows, classes]
    labels: npt.NDArray[np.bool_]  # [rows, classes]
    thresholds: Sequence[float]  # one a class
    calibration: Calibration
    confusions: Confusions
    training: Curves | None
    worst: Sequence[Picture]
    best: Sequence[Picture]
    facts: Mapping[str, Any]  # canopy.json's content
    config: Mapping[str, Any]  # the training run's settings
    versions: Mapping[str, str]  # of what trained and of what evaluated


@dataclass(frozen=True)
class Panel:
    """The two small plots of a tag."""

    tag: str
    support: int
    threshold: float
    fbeta: float | None
    best_threshold: float  # at which F2 of this tag alone is largest
    best_fbeta: float
    average_precision: float | None
    over_threshold: str  # an svg element
    precision_recall: str  # an svg element; "" where no row has the tag


@dataclass(frozen=True)
class Confused:
    """A row of the table of confusions."""

    tag: str  # that was missed
    images: int  # in which it was
    alone: int | None  # of these, without a wrong answer; None where that is not meant
    cells: list[tuple[int, float] | None]  # images, 0 to 1 of the largest; None: the tag itself


def render(found: Findings) -> str:
    """The page's HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trainer.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "digits": "{:#.{}g}".format,
        "figure": _figure,
        "isolated": isolated,
        "percent": "{:.2%}".format,
        "share": "{:.1%}".format,
        "thousands": "{:,}".format,
    }
    environment.globals["most_listed"] = MOST_LISTED  # a macro sees no variable of the page's
    environment.globals["most_rows"] = MOST_ROWS
    script = environment.get_template("report_script.html").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    ordered = sorted(found.checks, key=lambda check: ("fail", "look", "pass").index(check.verdict))
    columns, confused = _confused(found.confusions, found.tags)
    return environment.get_template("report.html").render(
        found=found,
        document=found.document,
        facts=found.facts,
        script=script,
        script_digest=digest,
        headline=headline(found.checks),
        verdict=ordered[0].verdict,
        raised=[check for check in ordered if check.verdict != "pass"],
        passed=[check for check in ordered if check.verdict == "pass"],
        panels=_panels(found),
        confused_columns=columns,
        confused=confused,
        most_confused=_most_confused(found.confusions, found.tags),
        reliability=plots.reliability("reliability", found.calibration),
        loss_curves=plots.loss_curves("loss", found.training) if found.training else "",
        f2_curve=plots.f2_curve("validation", found.training)
        if found.training and found.training.validated
        else "",
    )


def headline(checks: Sequence[Check]) -> str:
    """The verdict of all checks together, in a few words."""
    verdicts = {check.name: check.verdict for check in checks}
    failed = sum(verdict == "fail" for verdict in verdicts.values())
    looks = sum(verdict == "look" for verdict in verdicts.values())
    if verdicts.get("beats_constant") == "fail":
        return "No better than one answer for all"
    if failed:
        return f"Do not trust this score yet: {several(failed, 'check')} failed"
    if verdicts.get("beats_constant") == "look":
        return f"Not shown to be better than one answer for all: {several(looks, 'thing')} to look at"
    if looks:
        return f"Better than one answer for all, with {several(looks, 'thing')} to look at"
    return "Better than one answer for all, and every check passed"


def isolated(sentence: str) -> markupsafe.Markup:
    """A sentence as HTML in which words written from right to left leave those beside them in their places.

    Words of which one stands beside the other are one name: a name may hold spaces.
    """
    parts = re.split(rf"({_LEFTWARD}(?: +{_LEFTWARD})*)", sentence)  # every other one is such a name
    parts[1::2] = [markupsafe.Markup("<bdi>{}</bdi>").format(name) for name in parts[1::2]]
    return markupsafe.Markup("").join(parts)


def _figure(value: float | None, digits: int = 3) -> str:
    """A number for a table; a dash where there is none."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _panels(found: Findings) -> list[Panel]:
    """Panels of the most frequent tags, in the order of the vocabulary."""
    support = found.labels.sum(axis=0)
    shown = sorted(np.argsort(-support, kind="stable")[:MOST_PANELS].tolist())
    return [_panel(found, i, int(support[i])) for i in shown]


def _panel(found: Findings, tag: int, support: int) -> Panel:
    row = found.document["tags"][found.tags[tag]]
    scores, labels = found.scores[:, tag], found.labels[:, tag]
    curve = statistics.fbeta_over_thresholds(scores, labels)
    best = int(curve.argmax())
    svg = ""
    if support:
        recall, precision = metrics.precision_recall(scores, labels)
        svg = plots.precision_recall_panel(f"precision{tag}", recall, precision, support / len(labels))
    return Panel(
        tag=found.tags[tag],
        support=support,
        threshold=float(found.thresholds[tag]),
        fbeta=row["fbeta"],
        best_threshold=float(metrics.GRID[best]),
        best_fbeta=float(curve[best]),
        average_precision=row["average_precision"],
        over_threshold=plots.threshold_panel(f"threshold{tag}", curve, float(found.thresholds[tag])),
        precision_recall=svg,
    )


def _confused(found: Confusions, tags: Sequence[str]) -> tuple[list[tuple[str, int]], list[Confused]]:
    """The table of confusions: its columns (tag, images in which it is wrong) and its rows."""
    rows = [int(i) for i in np.argsort(-found.missed, kind="stable")[:MOST_CONFUSED] if found.missed[i]]
    columns = [int(i) for i in np.argsort(-found.wrong, kind="stable")[:MOST_CONFUSED] if found.wrong[i]]
    if not rows and not columns:
        return [], []
    largest = max(1, int(found.pairs[np.ix_(rows, columns)].max(initial=0)))
    strays = [int(found.stray[j]) for j in columns]
    table = [
        Confused(
            "(nothing missed)",
            found.only_strays,
            None,
            [(count, min(1.0, count / largest)) for count in strays],
        )
    ]
    table += [
        Confused(
            tags[i],
            int(found.missed[i]),
            int(found.alone[i]),
            [None if i == j else (int(found.pairs[i, j]), found.pairs[i, j] / largest) for j in columns],
        )
        for i in rows
    ]
    return [(tags[j], int(found.wrong[j])) for j in columns], table


def _most_confused(found: Confusions, tags: Sequence[str]) -> list[tuple[str, str, int]]:
    """The most frequent pairs of a missed and a wrongly answered tag, with their images."""
    pairs, result = found.pairs.copy(), []
    for _ in range(MOST_PAIRS):
        i, j = divmod(int(pairs.argmax()), len(tags))
        if pairs[i, j]:
            result.append((tags[i], tags[j], int(pairs[i, j])))
        pairs[i, j] = 0
    return result
