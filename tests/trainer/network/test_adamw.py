"""AdamW in one operation: the same weights as the library's dozen."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from tests.trainer.replicas import passes_alone, two_replicas
from trainer.network.adamw import FusedAdamW

SHAPES = ((3, 3, 4), (4,), (7, 2))


def _optimizer(kind: Any) -> Any:
    rate = tf_keras.optimizers.schedules.CosineDecay(1e-2, 40, warmup_target=3e-2, warmup_steps=10)
    made = kind(rate, weight_decay=0.1, jit_compile=False)
    made.exclude_from_weight_decay(var_names=["bias"])
    return made


def _gradients(step: int) -> list[Any]:
    drawn = np.random.default_rng(step)
    return [tf.constant(drawn.normal(size=shape) * 10.0 ** (-step % 9), tf.float32) for shape in SHAPES]


def _after(optimizer: Any, variables: list[Any], steps: int) -> list[Any]:
    @tf.function
    def move(*gradients: Any) -> None:
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    for step in range(steps):
        move(*_gradients(step))
    return [each.numpy() for each in variables]


def _variables() -> list[Any]:
    drawn = np.random.default_rng(0)
    names = ("kernel", "bias", "other")
    return [
        tf.Variable(drawn.normal(size=shape).astype(np.float32), name=name)
        for name, shape in zip(names, SHAPES, strict=True)
    ]


def test_ends_where_the_librarys_ends() -> None:
    ours, theirs = _variables(), _variables()
    one, other = _optimizer(FusedAdamW), _optimizer(tf_keras.optimizers.AdamW)
    for mine, its in zip(_after(one, ours, 30), _after(other, theirs, 30), strict=True):
        np.testing.assert_allclose(mine, its, rtol=2e-4, atol=1e-6)
    for mine, its in zip(one.variables, other.variables, strict=True):
        np.testing.assert_allclose(mine.numpy(), its.numpy(), rtol=1e-4, atol=1e-9)


def test_what_is_excluded_does_not_decay() -> None:
    variables = _variables()
    before = [each.numpy() for each in variables]
    optimizer = _optimizer(FusedAdamW)
    optimizer.apply_gradients((tf.zeros_like(each), each) for each in variables)
    moved = [bool((each.numpy() != was).any()) for each, was in zip(variables, before, strict=True)]
    assert moved == [True, False, True]


def test_variables_that_join_late_are_moved_as_if_they_had_begun_then() -> None:
    """By the age of all, the first steps of those would be several times the learning rate."""
    variables, rate = _variables(), 1e-3
    optimizer = FusedAdamW(
        rate, weight_decay=0.0, jit_compile=False, late_from=200, is_late=lambda v: v.name.startswith("other")
    )
    optimizer.build(variables)
    head, late = variables[0], variables[2]
    began = head.numpy()
    for _ in range(200):
        optimizer.apply_gradients([(tf.ones_like(head), head)])
    for _ in range(3):
        before = late.numpy()
        optimizer.apply_gradients([(tf.ones_like(head), head), (tf.fill(late.shape, 0.3), late)])
        np.testing.assert_allclose(np.abs(late.numpy() - before), rate, rtol=1e-3)
    np.testing.assert_allclose(began - head.numpy(), 203 * rate, rtol=1e-3)


def _compare_two_replicas_with_one() -> None:
    strategy = two_replicas()
    with strategy.scope():
        spread = _variables()
        one = _optimizer(FusedAdamW)
        one.build(spread)
    alone = _variables()
    other = _optimizer(FusedAdamW)

    def replica(*gradients: Any) -> None:
        halves = [each / 2 for each in gradients]  # the two replicas' are summed
        one.apply_gradients(zip(halves, spread, strict=True))

    @tf.function
    def move(*gradients: Any) -> None:
        strategy.run(replica, gradients)

    for step in range(3):
        gradients = _gradients(step)
        move(*gradients)
        other.apply_gradients(zip(gradients, alone, strict=True))
    for mirrored, single in zip(spread, alone, strict=True):
        parts = strategy.experimental_local_results(mirrored)
        assert len(parts) == 2
        for part in parts:
            np.testing.assert_allclose(part.numpy(), single.numpy(), rtol=1e-5, atol=1e-6)


def test_two_replicas_move_alike() -> None:
    assert passes_alone(_compare_two_replicas_with_one)


def _exchange_between_two_replicas() -> None:
    strategy = two_replicas()
    seen = []
    for exchange in ("float32", "bfloat16"):
        with strategy.scope():
            optimizer, variables = FusedAdamW(exchange=exchange), _variables()

        @tf.function
        def total(gradients: Any, optimizer: Any = optimizer, variables: Any = variables) -> Any:
            def replica() -> Any:
                number = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group + 1, tf.float32)
                pairs = [(each * number, v) for each, v in zip(gradients, variables, strict=True)]
                return [found for found, _ in optimizer.aggregate_gradients([*pairs, (None, variables[0])])]

            return strategy.run(replica)

        *sums, nothing = total(_gradients(0))
        assert nothing is None
        seen.append([[part.numpy() for part in strategy.experimental_local_results(each)] for each in sums])
    for exact, coarse, one in zip(*seen, _gradients(0), strict=True):
        for mine, rounded in zip(exact, coarse, strict=True):
            assert mine.dtype == rounded.dtype == np.float32
            np.testing.assert_allclose(mine, 3 * one.numpy(), rtol=1e-6)
            # Each of the two and their sum are rounded to 8 bits: not more than 2 ** -9 off, each time.
            assert np.abs(rounded - mine).max() <= 2**-8 * 3 * np.abs(one).max()
            assert np.any(rounded != mine)
            np.testing.assert_array_equal(rounded, tf.cast(tf.cast(rounded, tf.bfloat16), tf.float32))


def test_gradients_travel_in_the_type_that_was_chosen_and_come_back_in_their_own() -> None:
    assert passes_alone(_exchange_between_two_replicas)


def test_a_single_replica_rounds_nothing() -> None:
    gradients = _gradients(0)
    pairs = [(each, each) for each in gradients]
    kept = FusedAdamW(exchange="bfloat16").aggregate_gradients(pairs)
    for (found, _), given in zip(kept, gradients, strict=True):
        np.testing.assert_array_equal(found, given)


def test_a_step_whose_scaled_gradients_overflow_moves_nothing() -> None:
    variables = _variables()
    before = [each.numpy() for each in variables]
    optimizer = tf_keras.mixed_precision.LossScaleOptimizer(_optimizer(FusedAdamW))
    optimizer.apply_gradients((tf.fill(each.shape, float("inf")), each) for each in variables)
    for each, was in zip(variables, before, strict=True):
        np.testing.assert_array_equal(each.numpy(), was)
    optimizer.apply_gradients((tf.ones_like(each), each) for each in variables)
    assert all((each.numpy() != was).any() for each, was in zip(variables, before, strict=True))
