"""What was saved comes back, whatever happened to the newest file."""

import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from canopy.cli import PeerLostError, UserError
from tests.trainer.stale import hide, remember
from trainer import checkpoints
from trainer.checkpoints import Checkpoints
from trainer.local import Local


def of(folder, *variables, writes=True, streams=8):
    return Checkpoints(str(folder), variables, Local(tf.distribute.get_strategy()), streams, writes)


def saved(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_the_newest_checkpoint_is_taken_up_and_two_are_kept(tmp_path):
    kernel, count = tf.Variable(tf.zeros([3, 2])), tf.Variable(0, dtype=tf.int64)
    checkpoints = of(tmp_path, kernel, count)
    assert checkpoints.restore() == 0
    for step in (10, 20, 30):
        kernel.assign(tf.fill([3, 2], float(step)))
        count.assign(step)
        checkpoints.save(step)
    assert saved(tmp_path) == ["step-00000020.npz", "step-00000030.npz"]
    (tmp_path / "checkpoints" / "partial").touch()  # what a save that was cut short has left
    fresh, its_count = tf.Variable(tf.ones([3, 2])), tf.Variable(7, dtype=tf.int64)
    assert of(tmp_path, fresh, its_count).restore() == 30
    np.testing.assert_array_equal(fresh, np.full([3, 2], 30.0))
    assert its_count.numpy() == 30


def test_it_tells_how_the_epoch_was_cut_when_it_was_saved(tmp_path):
    value = tf.Variable(0.0)
    of(tmp_path, value, streams=8).save(1)
    later = of(tmp_path, value, streams=3)
    assert later.streams_then == 3
    later.restore()
    assert later.streams_then == 8
    later.save(2)
    last = of(tmp_path, value, streams=8)
    last.restore()
    assert last.streams_then == 3


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning_that_names_it(tmp_path, damage, logged):
    value = tf.Variable(tf.zeros([100]))
    checkpoints = of(tmp_path, value)
    for step in (1, 2):
        value.assign(tf.fill([100], float(step)))
        checkpoints.save(step)
    newest = tmp_path / "checkpoints" / "step-00000002.npz"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 0xFF
    newest.write_bytes({"cut": data[: len(data) // 2], "flipped": data, "emptied": b""}[damage])
    assert checkpoints.restore() == 1
    assert "step-00000002.npz" in logged.text
    np.testing.assert_array_equal(value, np.full([100], 1.0))


@pytest.mark.parametrize(("offset", "bit"), [(6, 6), (8, 0), (10, 1)])  # of a version, a flag, a method
def test_a_bit_that_makes_a_checkpoint_look_like_another_kind_of_archive_is_damage(tmp_path, offset, bit):
    value, kept = at_steps(tmp_path, 1, 2)
    newest = tmp_path / "checkpoints" / "step-00000002.npz"
    data = bytearray(newest.read_bytes())
    data[data.index(b"PK\x01\x02") + offset] ^= 1 << bit
    newest.write_bytes(data)
    assert kept.restore() == 1
    assert value.numpy() == 1


class Trap:
    """What code in a file would do, if reading it were to run that."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    value, kept = at_steps(tmp_path, 1, 2)
    newest = tmp_path / "checkpoints" / "step-00000002.npz"
    np.savez(newest, np.array([Trap(tmp_path / "ran")], dtype=object), run=np.int64(0))
    assert kept.restore() == 1
    assert value.numpy() == 1
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_of_another_network_is_not_taken_up(tmp_path):
    of(tmp_path, tf.Variable([1.0])).save(1)
    other = tf.Variable([5.0, 5.0])
    with pytest.raises(UserError, match=r"has shape \(2,\) and there is \(1,\)"):
        of(tmp_path, other).restore()
    with pytest.raises(UserError, match=r"no checkpoint .* can be read"):
        of(tmp_path, tf.Variable([0.0]), other).restore()
    assert other.numpy().tolist() == [5.0, 5.0]


def test_where_all_checkpoints_are_damaged_a_run_does_not_begin_anew_by_itself(tmp_path):
    value, _ = at_steps(tmp_path, 1, 2)
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match=r"no checkpoint .* can be read \(.*step-00000002.*--restart"):
        of(tmp_path, value).restore()


def test_a_checkpoint_that_is_listed_and_gone_counts_for_nothing(tmp_path, monkeypatch):
    value, _ = at_steps(tmp_path, 1, 2)
    kept = of(tmp_path, value)
    monkeypatch.setattr(kept, "_steps", lambda: [1, 2, 3])
    assert kept.restore() == 2
    monkeypatch.setattr(kept, "_steps", lambda: [3])
    assert kept.restore() == 0


def test_what_a_type_of_arithmetic_adds_comes_back_and_may_be_lacking(tmp_path):
    scale, other = tf.Variable(1024.0), tf.Variable(5.0)

    def with_scale(variable):
        named = {} if variable is None else {"loss_scale": variable}
        strategy = Local(tf.distribute.get_strategy())
        return Checkpoints(str(tmp_path), [tf.Variable(0.0)], strategy, 8, True, optional=named)

    with_scale(scale).save(1)
    with_scale(other).restore()
    assert other.numpy() == 1024.0
    assert with_scale(None).restore() == 1
    with_scale(None).save(2)
    other.assign(7.0)
    assert with_scale(other).restore() == 2
    assert other.numpy() == 7.0


def test_a_worker_that_is_not_the_chief_writes_nothing(tmp_path):
    assert of(tmp_path, tf.Variable(1.0), writes=False).save(5)  # it knows of nothing in the way
    assert list(tmp_path.iterdir()) == []


def at_steps(folder, *steps):
    """A variable with a checkpoint at each of `steps`, whose value is the step."""
    value = tf.Variable(0.0)
    kept = of(folder, value)
    for step in steps:
        value.assign(step)
        assert kept.save(step)
    return value, kept


def test_all_workers_take_the_newest_that_is_sound_to_all(tmp_path, logged):
    value, kept = at_steps(tmp_path, 10, 20)
    assert kept.restore(lambda step: [step, 10]) == 10
    assert value.numpy() == 10
    assert "worker 0: step 20, worker 1: step 10" in logged.text


def test_what_a_network_file_system_lists_late_is_taken_up_by_its_name(tmp_path, monkeypatch, logged):
    value, kept = at_steps(tmp_path, 10, 20)
    hide(monkeypatch, tmp_path / "checkpoints" / "step-00000020.npz")
    value.assign(0)
    assert kept.restore(lambda step: [20, step]) == 20
    assert value.numpy() == 20
    assert logged.text == ""


def test_checkpoints_of_a_folder_that_another_machine_has_just_made_are_found(tmp_path, monkeypatch):
    value, kept = at_steps(tmp_path, 10, 20)
    value.assign(0)
    hide(monkeypatch, tmp_path / "checkpoints")
    assert kept.restore() == 20
    assert value.numpy() == 20


def test_checkpoints_that_another_machine_has_removed_are_none(tmp_path, monkeypatch):
    remember(monkeypatch)
    _, kept = at_steps(tmp_path, 10)
    assert tf.io.gfile.exists(str(tmp_path / "checkpoints"))
    shutil.rmtree(tmp_path / "checkpoints")
    assert kept.restore() == 0
    assert kept.save(10)


def test_workers_with_storage_of_their_own_are_told(tmp_path):
    _, kept = at_steps(tmp_path, 10)
    with pytest.raises(PeerLostError, match=r"not the same storage.*worker 1: step 0"):
        kept.restore(lambda step: [step, 0])


def test_a_checkpoint_that_others_read_and_this_worker_cannot_ends_its_start(tmp_path):
    _, kept = at_steps(tmp_path, 20)
    with pytest.raises(PeerLostError, match=r"step-00000010\.npz cannot be read here"):
        kept.restore(lambda step: [step, 10])


def of_run(folder, run, *steps):
    """A variable with a checkpoint of `run` at each of `steps`, whose value is the step."""
    value = tf.Variable(0.0)
    kept = of(folder, value)
    kept.restore(run=run)
    for step in steps:
        value.assign(step)
        assert kept.save(step)
    return value, kept


def test_a_checkpoint_of_another_run_is_passed_over_and_not_called_damaged(tmp_path, logged):
    of_run(tmp_path, 1, 40)
    value, kept = of_run(tmp_path, 2)
    assert kept.restore(run=2) == 0
    assert value.numpy() == 0
    value.assign(10)
    assert kept.save(10)
    assert kept.restore(run=2) == 10
    assert logged.text == ""


def test_a_checkpoint_of_another_run_takes_no_place_of_the_runs_own(tmp_path):
    of_run(tmp_path, 1, 40)
    of_run(tmp_path, 2, 10, 20, 30)
    assert saved(tmp_path) == ["step-00000020.npz", "step-00000030.npz", "step-00000040.npz"]


def test_a_worker_that_sees_another_runs_checkpoint_alone_does_not_take_it(tmp_path):
    of_run(tmp_path, 1, 40)
    _, kept = of_run(tmp_path, 2)
    with pytest.raises(PeerLostError, match=r"step-00000040\.npz cannot be read here|not the same storage"):
        kept.restore(lambda step: [40, step], run=2)


@pytest.mark.parametrize("lacking", ["run", "format_version", "streams"])
def test_a_checkpoint_that_does_not_tell_what_it_is_counts_as_damaged(tmp_path, lacking):
    value, kept = at_steps(tmp_path, 10, 20)
    path = tmp_path / "checkpoints" / "step-00000020.npz"
    with np.load(path) as found:
        content = {name: found[name] for name in found.files if name != lacking}
    np.savez(path, **content)
    assert (kept.restore(), value.numpy()) == (10, 10)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_never_saved(tmp_path, bad):
    value, kept = at_steps(tmp_path, 1, 2)
    value.assign(bad)
    for worker in (kept, of(tmp_path, value, writes=False)):
        with pytest.raises(UserError, match="no number any more at step 3"):
            worker.save(3)
    assert saved(tmp_path) == ["step-00000001.npz", "step-00000002.npz"]


def test_one_bad_number_among_the_good_ones_of_all_variables_is_enough(tmp_path):
    weights, count = [tf.Variable(tf.zeros([3, 2])) for _ in range(3)], tf.Variable(0, dtype=tf.int64)
    kept = of(tmp_path, *weights, count)
    assert kept.save(1)
    weights[1].assign([[0, 0], [0, np.nan], [0, 0]])
    with pytest.raises(UserError, match="no number any more at step 2"):
        kept.save(2)
    assert saved(tmp_path) == ["step-00000001.npz"]


def test_a_newer_format_is_refused_with_what_to_do_and_not_passed_over(tmp_path, monkeypatch):
    at_steps(tmp_path, 4)
    monkeypatch.setattr(checkpoints, "FORMAT_VERSION", 2)
    _, kept = at_steps(tmp_path, 5)
    monkeypatch.setattr(checkpoints, "FORMAT_VERSION", 1)
    with pytest.raises(
        UserError, match=r"step-00000005\.npz has format version 2.*upgrade Canopy.*--restart"
    ):
        kept.restore()
