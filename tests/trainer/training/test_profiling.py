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


@pytest.mark.parametrize(("behind", "recorded"), [(1, 1), (PROFILED_STEPS + 5, PROFILED_STEPS)])
def test_the_steps_behind_the_warm_up_are_where_tensorboard_looks(tmp_path, caplog, behind, recorded):
    with caplog.at_level(logging.INFO, "canopy"):
        take(Profiler(str(tmp_path), True), WARM_UP_STEPS + behind)
    (profile,) = written(tmp_path)
    content = profile.read_bytes()
    assert all(word in content for word in (b"train", b"step_num", b"\x02_r"))  # steps to TensorBoard
    assert caplog.messages == [f"a profile of {recorded} steps is in {tmp_path}/logs"]


@pytest.mark.parametrize("steps", [3, WARM_UP_STEPS + 5])
def test_nothing_is_written_or_said_without_the_flag(tmp_path, caplog, steps):
    with caplog.at_level(logging.INFO, "canopy"):
        take(Profiler(str(tmp_path), False), steps)
    assert not list(tmp_path.iterdir())
    assert not caplog.messages


@pytest.mark.parametrize("steps", [3, WARM_UP_STEPS])
def test_a_run_too_short_for_a_profile_says_so(tmp_path, caplog, steps):
    with caplog.at_level(logging.WARNING, "canopy"):
        take(Profiler(str(tmp_path), True), steps)
    assert "--profile needs more than" in caplog.text
    assert not written(tmp_path)


@pytest.mark.parametrize("refused", ["logs", "logs/plugins"])
def test_a_storage_that_refuses_the_profile_is_told_and_the_steps_go_on(tmp_path, caplog, refused):
    (tmp_path / refused).parent.mkdir(exist_ok=True)
    (tmp_path / refused).touch()  # no folder can be made there
    with caplog.at_level(logging.WARNING, "canopy"):
        take(Profiler(str(tmp_path), True), WARM_UP_STEPS + PROFILED_STEPS + 5)
    (told,) = caplog.messages
    assert told.startswith(f"there is no profile: {tmp_path / refused}")
