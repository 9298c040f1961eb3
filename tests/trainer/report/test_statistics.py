"""The report's formulas: against published figures, brute force and what must hold for any input."""

import math
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from trainer import metrics
from trainer.report import statistics

pytestmark = pytest.mark.filterwarnings("error")  # of an empty bin the report says nan, and NumPy nothing


def exact_fisher(hits, rows, other_hits, other_rows):
    """The same sum in whole numbers."""
    positives, total = hits + other_hits, comb(rows + other_rows, hits + other_hits)
    possible = range(max(0, positives - other_rows), min(rows, positives) + 1)
    ways = [comb(rows, k) * comb(other_rows, positives - k) for k in possible]
    found = comb(rows, hits) * comb(other_rows, other_hits)
    return float(Fraction(sum(way for way in ways if way <= found), total))


@given(st.data(), st.integers(1, 30), st.integers(1, 30))
def test_fishers_test_is_the_sum_over_all_tables(data, rows, other_rows):
    hits, others = data.draw(st.integers(0, rows)), data.draw(st.integers(0, other_rows))
    expected = exact_fisher(hits, rows, others, other_rows)
    assert statistics.fisher_exact(hits, rows, others, other_rows) == pytest.approx(expected, rel=1e-6)


def test_fishers_tea_tasting():
    assert statistics.fisher_exact(3, 4, 1, 4) == pytest.approx(34 / 70)


def test_fishers_test_takes_a_large_archive():
    assert statistics.fisher_exact(1_000, 100_000, 10_000, 1_000_000) == pytest.approx(1, abs=0.02)
    assert statistics.fisher_exact(1_300, 100_000, 10_000, 1_000_000) < 1e-12


def test_fishers_test_of_another_tag_takes_no_other_logarithms(monkeypatch):
    statistics.fisher_exact(1, 999, 2, 1_000)
    monkeypatch.delattr(np, "log")
    assert statistics.fisher_exact(5, 999, 5, 1_000) == pytest.approx(1, abs=0.01)


def test_holm_steps_down():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(arrays.arrays(np.float64, st.integers(1, 20), elements=st.floats(0, 1)))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values):
    adjusted = statistics.holm(p_values)
    assert (adjusted >= p_values - 1e-12).all()
    assert (adjusted <= 1).all()
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()


def test_two_samples_of_one_distribution_pass_and_others_do_not():
    rng = np.random.default_rng(0)
    same = [statistics.kolmogorov_smirnov(rng.normal(size=200), rng.normal(size=800))[1] for _ in range(300)]
    assert 0.01 < np.mean(np.array(same) < 0.05) < 0.1  # as often as the level says
    distance, p_value = statistics.kolmogorov_smirnov(rng.normal(size=200), rng.normal(1, size=800))
    assert distance > 0.3
    assert p_value < 1e-9
    assert statistics.kolmogorov_smirnov([0, 0, 1], [0, 0, 1]) == (0.0, 1.0)


def test_kolmogorov_smirnov_has_the_tabled_critical_value():
    # 1.358 sqrt((n + m) / (n m)) is the 5% point for large samples.
    n = 2_000
    ladder = np.arange(n) / n
    moved = ladder + 1.358 * math.sqrt(2 / n)
    assert statistics.kolmogorov_smirnov(ladder, moved)[1] == pytest.approx(0.05, abs=0.003)


def test_an_intervals_coverage_is_95_percent():
    rng = np.random.default_rng(1)
    found = [statistics.mean_interval(rng.random(100)) for _ in range(1_000)]
    inside = np.mean([abs(each.mean - 0.5) <= each.half_width for each in found])
    assert 0.93 < inside < 0.97


def test_one_row_has_no_interval_and_two_have_a_wide_one():
    assert statistics.mean_interval([0.5]).half_width == math.inf
    assert statistics.mean_interval([0, 1]).half_width == pytest.approx(1.96 / 2, abs=1e-4)


def test_scores_that_come_true_as_often_as_they_say_have_no_calibration_error():
    scores = np.repeat([0.25, 0.75], 100)[:, None]
    labels = np.concatenate([np.arange(100) < 25, np.arange(100) < 75])[:, None]
    found = statistics.calibration(scores, labels)
    assert found.error == pytest.approx(0)
    assert sum(found.counts) == 200
    assert found.shares[2] == pytest.approx(0.25)


def test_the_calibration_error_is_the_weighted_gap():
    # 10 scores of 0.9 of which none is true, 30 of 0.1 of which all are not: (10 * 0.9 + 30 * 0.1) / 40.
    scores = np.concatenate([np.full(10, 0.9), np.full(30, 0.1)])[:, None]
    assert statistics.calibration(scores, np.zeros_like(scores)).error == pytest.approx(0.3)


def test_a_score_of_one_is_in_the_last_bin():
    assert statistics.calibration([[1.0]], [[1]]).counts[-1] == 1


def test_a_miss_and_a_false_alarm_in_one_image_are_a_confusion():
    labels = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 1], [0, 1, 0]])
    answered = np.array([[0, 1, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    found = statistics.confusions(answered, labels)
    assert found.pairs.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert found.missed.tolist() == [2, 0, 0]
    assert found.alone.tolist() == [1, 0, 0]
    assert found.wrong.tolist() == [0, 2, 0]
    assert found.stray.tolist() == [0, 1, 0]
    assert found.only_strays == 1


@given(st.integers(0, 2**32 - 1))
def test_the_curve_over_thresholds_is_the_score_at_each(seed):
    rng = np.random.default_rng(seed)
    scores, labels = rng.random(40).round(2), rng.random(40) < 0.3
    curve = statistics.fbeta_over_thresholds(scores, labels)
    for threshold in (0.01, 0.2, 0.5, 0.99):
        # Beside a tag that all rows have no row's answer is empty.
        beside, always = np.stack([scores, np.ones(40)], axis=1), np.stack([labels, np.ones(40)], axis=1)
        row = metrics.per_tag(beside, always, [threshold, 0.5], ("tag", "always"))[0]
        at = int(np.flatnonzero(threshold == metrics.GRID)[0])
        assert curve[at] == pytest.approx(row.fbeta)
