"""The profile that --profile writes for TensorBoard."""

import logging

import pytest
import tensorflow as tf

from trainer.training.profiling import PROFILED_STEPS, WARM_UP_STEPS, Profiler


def take(profiler, steps):
    with profiler:
        for number in range(steps):
            with profiler.step(number):
                tf.add(number, 1)


def written(model_dir):
    return list(model_dir.glob("logs/plugins/profile/*/*.xplane.pb"))


@pytest.mark.parametrize("steps", [WARM_UP_STEPS + 1, WARM_UP_STEPS + PROFILED_STEPS + 5])
def test_the_steps_behind_the_warm_up_are_where_tensorboard_looks(tmp_path, steps):
    take(Profiler(str(tmp_path), True), steps)
    (profile,) = written(tmp_path)
    content = profile.read_bytes()
    assert b"train" in content


def test_nothing_is_written_without_the_flag(tmp_path):
    take(Profiler(str(tmp_path), False), WARM_UP_STEPS + 5)
    assert not list(tmp_path.iterdir())


def test_a_run_too_short_for_a_profile_says_so(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "canopy"):
        take(Profiler(str(tmp_path), True), 3)
    assert "--profile needs more than" in caplog.text
    assert not written(tmp_path)
