"""The plots: small, without identifiers in common, addresses, fonts or colours of their own."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from tests.trainer.report.making import scored_rows
from trainer import metrics
from trainer.report import plots, statistics
from trainer.report.training import Curves


def every_plot(name):
    scores, labels = scored_rows()
    recall, precision = metrics.precision_recall(scores[:, 0], labels[:, 0])
    found = Curves([1, 2, 3], [0.7, 0.4, 0.3], [2, 3], [0.5, 0.4], [0.8, 0.9], 2)
    return [
        plots.threshold_panel(f"{name}a", np.linspace(0, 1, len(metrics.GRID)), 0.2),
        plots.precision_recall_panel(f"{name}b", recall, precision, 0.5),
        plots.reliability(f"{name}c", statistics.calibration(scores, labels)),
        plots.loss_curves(f"{name}d", found),
        plots.f2_curve(f"{name}e", found),
    ]


@pytest.fixture(scope="module")
def drawn():
    return every_plot("one") + every_plot("two")


def test_each_is_one_element(drawn):
    for svg in drawn:
        assert ET.fromstring(svg).tag == "svg"
        assert len(svg) < 40_000


def test_no_identifier_occurs_twice_and_every_reference_has_its_own(drawn):
    identifiers = [found for svg in drawn for found in re.findall(r'\bid="([^"]+)"', svg)]
    assert identifiers
    assert len(set(identifiers)) == len(identifiers)
    for svg in drawn:
        references = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
        assert references <= set(re.findall(r'\bid="([^"]+)"', svg))


def test_none_names_an_address_a_font_a_style_sheet_or_a_colour(drawn):
    for svg in drawn:
        assert "://" not in svg
        assert "font-family" not in svg
        assert "<style" not in svg
        assert "<script" not in svg
        assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) <= {"#ffffff"}
        assert "currentColor" in svg
        assert "var(--accent)" in svg


def test_the_same_plot_is_the_same_text():
    assert every_plot("x") == every_plot("x")


def test_empty_bins_and_a_single_point_can_be_drawn():
    assert plots.reliability("a", statistics.calibration([[0.99]], [[1]]))
    assert plots.precision_recall_panel("b", np.array([1.0]), np.array([0.5]), 0.5)
    assert plots.loss_curves("c", Curves([1], [0.5], [], [], [], 1))


def test_a_curve_of_thousands_of_points_keeps_its_shape():
    recall = np.linspace(0.001, 1, 3_000)
    bent = plots.precision_recall_panel("bent", recall, 1 - recall**2, 0.1)
    path = max(re.findall(r' d="([^"]+)"', bent), key=len)
    assert 100 < path.count("L") < 1_000


def test_ticks_that_lie_close_together_keep_all_their_digits():
    found = Curves([1, 2], [0.7, 0.6], [1, 2], [0.7, 0.6], [0.887, 0.913], 2)
    texts = [text.text for text in ET.fromstring(plots.f2_curve("close", found)).iter("text")]
    assert {"0.890", "0.895", "0.900", "0.905", "0.910"} <= set(texts)
    assert len(set(texts)) == len(texts)
