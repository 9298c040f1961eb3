"""The report's plots, as SVG that lives within the page.

Promises: no identifier occurs twice in a page, no address and no font is named, and every colour is one of
the page's own, so that a plot follows light, dark and print. No text from outside gets into a plot.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer import metrics
from trainer.report.statistics import Calibration
from trainer.report.training import Curves

# What matplotlib draws in, and what the page makes of it. The codes are only marks.
INK, ACCENT, SECOND, FAINT = "#010203", "#010204", "#010205", "#010206"
_COLOURS = {
    INK: "currentColor",
    ACCENT: "var(--accent)",
    SECOND: "var(--second)",
    FAINT: "var(--line)",
}
_MARK = re.compile("|".join(_COLOURS))
_LONG = re.compile(r"\d+\.\d{3,}")  # places and sizes: hundredths of a point are fine enough
MOST_POINTS = 200  # of a curve: more are not to be seen
SMALL, WIDE = (2.15, 1.55), (4.6, 2.7)  # inches: a panel of many, a plot of its own
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's own font
    "svg.hashsalt": "canopy",  # the same plot, the same bytes
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.labelcolor": INK,
    "lines.solid_capstyle": "round",
}

Array = npt.NDArray[np.float64]


def threshold_panel(name: str, curve: Array, threshold: float) -> str:
    """F2 of one tag over the threshold, with the one that was chosen.

    Args:
        name: an identifier of this plot, unique in the page.
        curve: float[len(metrics.GRID)].
        threshold: of the model.
    """

    def draw(axes: Any) -> None:
        axes.axvline(threshold, color=SECOND, linewidth=1, linestyle=(0, (3, 2)))
        axes.plot(metrics.GRID, curve, color=ACCENT, linewidth=1.8)
        at = float(np.interp(threshold, metrics.GRID, curve))
        axes.plot([threshold], [at], "o", color=SECOND, markersize=5)
        _unit_square(axes)

    return _svg(name, SMALL, draw)


def precision_recall_panel(name: str, recall: Array, precision: Array, support: float) -> str:
    """Precision over recall of one tag, with what guessing would reach.

    Args:
        name: an identifier of this plot, unique in the page.
        recall: float[points], ascending.
        precision: float[points].
        support: share of the images that have the tag: the precision of guessing.
    """

    def draw(axes: Any) -> None:
        axes.axhline(support, color=SECOND, linewidth=1, linestyle=(0, (3, 2)))
        kept = _thin(recall)
        axes.step(np.append(0, recall[kept]), np.append(precision[:1], precision[kept]), color=ACCENT, lw=1.8)
        _unit_square(axes)

    return _svg(name, SMALL, draw)


def reliability(name: str, found: Calibration) -> str:
    """The share of true tags over the score, a dot a bin, over bars of the bins' counts, logarithmic.

    Args:
        name: an identifier of this plot, unique in the page.
        found: the bins.
    """
    bins = len(found.counts)
    left, filled = np.arange(bins) / bins, np.asarray(found.counts) > 0

    def draw(axes: Any) -> None:
        shares, means = np.asarray(found.shares), np.asarray(found.scores)
        axes.bar(left, np.nan_to_num(shares), 1 / bins, align="edge", color=ACCENT, alpha=0.22)
        axes.plot([0, 1], [0, 1], color=SECOND, linewidth=1, linestyle=(0, (3, 2)))
        axes.plot(means[filled], shares[filled], "o-", color=ACCENT, linewidth=1.4, markersize=4)
        _unit_square(axes)
        axes.set_ylabel("share that is true")
        counts = axes.inset_axes((0, -0.42, 1, 0.3), sharex=axes)
        counts.bar(left, found.counts, 1 / bins, align="edge", color=ACCENT, alpha=0.22)
        counts.set(yscale="log", ylim=(0.5, max(2, *found.counts) * 2), xlabel="score", ylabel="count")
        counts.minorticks_off()
        counts.set_yticks(())  # the numbers are in the table beside it

    return _svg(name, (4.0, 4.3), draw, bottom=1.6)


def loss_curves(name: str, found: Curves) -> str:
    """Training and validation loss over steps."""

    def draw(axes: Any) -> None:
        axes.plot(found.steps, found.losses, color=ACCENT, linewidth=1.2, label="training")
        axes.plot(
            found.validated,
            found.validation_losses,
            "o--",
            color=SECOND,
            linewidth=1.4,
            markersize=4,
            label="validation",
        )
        axes.set(xlim=(0, None), ylim=(0, None), xlabel="step", ylabel="loss")
        axes.legend()

    return _svg(name, WIDE, draw)


def f2_curve(name: str, found: Curves) -> str:
    """Validation F2 over steps."""

    def draw(axes: Any) -> None:
        axes.plot(found.validated, found.validation_f2, "o-", color=ACCENT, linewidth=1.6, markersize=4)
        axes.set(xlim=(0, None), xlabel="step", ylabel="validation F2")

    return _svg(name, WIDE, draw)


def _unit_square(axes: Any) -> None:
    ticks, labels = (0, 0.5, 1), ("0", "0.5", "1")
    axes.set(xlim=(0, 1), xticks=ticks, xticklabels=labels, ylim=(0, 1.02), yticks=ticks, yticklabels=labels)


def _thin(values: Array) -> npt.NDArray[np.int64]:
    """Indices of at most `MOST_POINTS` of the points, the last included."""
    return np.unique(np.linspace(0, len(values) - 1, min(MOST_POINTS, len(values))).round().astype(np.int64))


def _svg(name: str, size: tuple[float, float], draw: Callable[[Any], None], bottom: float = 0.42) -> str:
    """Draws into a figure of its own and returns the SVG element, made fit for the page."""
    import matplotlib as mpl  # it costs a second
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size)
        FigureCanvasSVG(figure)
        wide, high = size
        left, bottom = (0.24, 0.22) if size == SMALL else (0.52, bottom)  # inches, for the axes' labels
        right, top = 0.1, 0.07
        # Set by hand: matplotlib's own layout takes three times as long, and there are two panels a tag.
        draw(
            figure.add_axes(
                (left / wide, bottom / high, 1 - (left + right) / wide, 1 - (bottom + top) / high)
            )
        )
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return inline(out.getvalue(), name)


def inline(svg: str, name: str) -> str:
    """Makes a file that matplotlib wrote an element of a page.

    Args:
        svg: the file's text.
        name: put before every identifier that is referred to; all others are dropped.

    Returns:
        An `svg` element that is decoration to a screen reader: the page says in words what it shows.
    """
    text = svg[svg.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = text.replace("xlink:href", "href")
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r'^<svg[^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text)
    text = _MARK.sub(lambda m: _COLOURS[m[0]], text)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # it would hold for the whole page
    text = re.sub(r"font-family: [^;\"]+;? ?", "", text)
    text = re.sub(r' transform="rotate\(-?0 [^"]*"', "", text)
    text = re.sub(r"<[^>]*>", lambda tag: _LONG.sub(lambda m: f"{float(m[0]):.2f}", tag[0]), text)
    return re.sub(r"\s*\n\s*", " ", re.sub(r">\s+<", "><", text)).strip()
