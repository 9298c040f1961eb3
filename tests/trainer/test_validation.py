"""What an epoch's metrics say: each equals its plain definition over all rows."""

import numpy as np
import pytest

from trainer.validation import Validation

TAGS = ("clear", "haze", "mine")
DRAWN = np.random.default_rng(5)
LABELS = np.c_[DRAWN.integers(0, 2, (200, 2)), np.zeros(200, np.int64)]
SCORES = np.clip(0.6 * LABELS + 0.4 * DRAWN.random((200, 3)), 0.001, 0.999)


def f2(answered, labels):
    """The competition's formula, row by row."""
    found = []
    for given, true in zip(answered, labels, strict=True):
        hits = (given & true).sum()
        precision, recall = hits / max(given.sum(), 1), hits / max(true.sum(), 1)
        found.append(5 * precision * recall / (4 * precision + recall) if hits else 0.0)
    return np.mean(found)


def answers(thresholds):
    answered = np.asarray(thresholds) <= SCORES
    for row in np.flatnonzero(~answered.any(axis=1)):
        answered[row, (SCORES[row] / thresholds).argmax()] = True
    return answered


def test_loss_and_f2_are_those_of_all_rows():
    result = Validation.of(SCORES, LABELS, TAGS)
    loss = -np.mean(np.where(LABELS, np.log(SCORES), np.log(1 - SCORES)))
    assert result.summary["loss"] == pytest.approx(loss)
    true = LABELS.astype(bool)
    assert result.summary["f2_at_0.2"] == pytest.approx(f2(answers(np.full(3, 0.2)), true))
    assert result.summary["f2"] == pytest.approx(f2(answers(result.thresholds), true))
    assert result.summary["records"] == 200


def test_the_best_of_constant_answers_is_named_with_its_score():
    found = Validation.of(SCORES, LABELS, TAGS).summary
    assert found["constant_tags"] == ["clear", "haze"]
    assert found["f2_constant"] == pytest.approx(f2(np.tile([True, True, False], (200, 1)), LABELS > 0))


def test_the_loss_of_thousands_of_rare_tags_is_told_in_digits_that_tell():
    labels = np.zeros((10, 1000), int)
    labels[:, 0] = 1
    found = Validation.of(np.full(labels.shape, 0.0123456), labels, tuple(f"t{i}" for i in range(1000)))
    assert found.sentence().startswith("loss 0.01680, F2 ")


def test_thresholds_that_are_given_are_taken_and_not_tuned():
    given = [0.9, 0.1, 0.3]
    result = Validation.of(SCORES, LABELS, TAGS, np.array(given))
    assert result.thresholds == given
    assert result.summary["f2"] == pytest.approx(f2(answers(given), LABELS.astype(bool)))


def test_each_tag_has_its_own_figures():
    found = Validation.of(SCORES, LABELS, TAGS)
    assert list(found.summary["tags"]) == list(TAGS)
    clear = found.summary["tags"]["clear"]
    given, true = answers(found.thresholds)[:, 0], LABELS[:, 0].astype(bool)
    assert clear["precision"] == pytest.approx((given & true).sum() / given.sum())
    assert clear["recall"] == pytest.approx((given & true).sum() / true.sum())
    assert 0 < clear["average_precision"] <= 1
    assert clear["threshold"] == found.thresholds[0]
    assert "tag" not in clear, "which is its key"


def test_a_tag_that_validation_lacks_is_named_and_keeps_a_fifth():
    result = Validation.of(SCORES, LABELS, TAGS)
    assert result.summary["absent_tags"] == ["mine"]
    assert result.thresholds[2] == 0.2
    assert result.summary["tags"]["mine"]["average_precision"] is None
