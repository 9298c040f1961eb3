"""The losses: what they are where it is easily said, and that they never leave the numbers."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from trainer.network import losses

KINDS = ("bce", "focal", "asymmetric")


def value(kind, label, logit):
    return float(losses.of(kind, tf.constant([[label]]), tf.constant([[logit]]))[0, 0])


def gradient(kind, label, logit):
    at = tf.constant([[logit]])
    with tf.GradientTape() as tape:
        tape.watch(at)
        loss = losses.of(kind, tf.constant([[label]]), at)
    return float(tape.gradient(loss, at)[0, 0])


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_each_at_even_odds(label):
    assert value("bce", label, 0.0) == pytest.approx(np.log(2))
    assert value("focal", label, 0.0) == pytest.approx(np.log(2) / 4)
    expected = np.log(2) if label else -(0.45**4) * np.log(0.55)
    assert value("asymmetric", label, 0.0) == pytest.approx(expected, rel=1e-5)


def test_an_absent_tag_below_the_margin_costs_nothing():
    assert value("asymmetric", 0.0, -4.0) == 0.0
    assert gradient("asymmetric", 0.0, -4.0) == 0.0
    assert value("asymmetric", 1.0, -4.0) > 4.0


@pytest.mark.parametrize("kind", KINDS)
@given(label=st.floats(0, 1, width=32), logit=st.floats(-1e4, 1e4, width=32))
def test_every_logit_has_a_finite_loss_and_gradient(kind, label, logit):
    assert 0 <= value(kind, label, logit) < np.inf
    assert np.isfinite(gradient(kind, label, logit))


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_answer_costs_more_than_a_right_one(kind):
    assert value(kind, 1.0, -3.0) > value(kind, 1.0, 3.0)
    assert value(kind, 0.0, 3.0) > value(kind, 0.0, -3.0)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_between_cost_what_lies_between(kind):
    low, middle, high = (value(kind, label, 1.0) for label in (0.0, 0.25, 1.0))
    assert middle == pytest.approx(0.75 * low + 0.25 * high, rel=1e-5)
