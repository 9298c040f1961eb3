"""What a run that a mistake has ended leaves of its hold on a model_dir."""

import json

import pytest
import tensorflow as tf

from canopy.cli import PeerLostError, UserError
from tests.trainer.test_claim import by_hand, settings
from trainer.claim import claim_model_dir


@pytest.mark.parametrize("is_chief", [True, False])
def test_a_mistake_found_before_the_first_step_leaves_no_hold_that_this_start_made(tmp_path, is_chief):
    if not is_chief:
        by_hand(settings(tmp_path))
    claim = by_hand(settings(tmp_path), is_chief=is_chief)
    with pytest.raises(UserError, match="a mistake"), claim.until_it_begins():
        raise UserError("a mistake")
    assert (tmp_path / "run.json").exists() is not is_chief


def test_a_lost_peer_or_an_earlier_start_keeps_the_hold(tmp_path):
    claim = by_hand(settings(tmp_path))
    with pytest.raises(PeerLostError), claim.until_it_begins():
        raise PeerLostError
    again = by_hand(settings(tmp_path))
    with pytest.raises(UserError), again.until_it_begins():
        raise UserError("a mistake")
    assert (tmp_path / "run.json").exists()


FULL = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


@pytest.mark.parametrize("error", [MemoryError(), FULL])
def test_what_does_not_fit_into_memory_is_a_mistake_as_any_other(tmp_path, error):
    claim = by_hand(settings(tmp_path))
    with pytest.raises(type(error)), claim.until_it_begins():
        raise error
    assert not (tmp_path / "run.json").exists()
    begun_and_failed(tmp_path, 9.0, error)
    by_hand(settings(tmp_path, learning_rate=0.1))


def begun_and_failed(folder, rate, error=None, **given):
    """A run that begins, writes its journal, and ends for the user's mistake."""
    error = error or UserError("a mistake")
    claim = claim_model_dir(
        settings(folder, learning_rate=rate, **given), "data", is_chief=True, run=str(rate)
    )
    claim.begin()
    (folder / "metrics.jsonl").write_text("how it went wrong")
    with pytest.raises(type(error)), claim.until_it_saves():
        raise error


@pytest.mark.parametrize("restart", [False, True])
def test_a_run_that_a_mistake_ended_before_its_first_checkpoint_makes_room_for_the_mended_one(
    tmp_path, restart
):
    by_hand(settings(tmp_path))
    if not restart:
        (tmp_path / "run.json").unlink()
    begun_and_failed(tmp_path, 9.0, restart=restart)
    assert (tmp_path / "metrics.jsonl").exists()
    for is_chief in (True, False):
        mended = claim_model_dir(settings(tmp_path, learning_rate=0.1), "other data", is_chief, "mended")
        mended.begin()
        assert not (tmp_path / "metrics.jsonl").exists()
    with pytest.raises(UserError, match=r"learning_rate: was 0\.1, is 0\.2"):
        claim_model_dir(settings(tmp_path, learning_rate=0.2), "other data", True, "later")


@pytest.mark.parametrize("name", ["run", "rate [1e-3]*"])
def test_a_run_that_has_saved_keeps_the_hold_whatever_ends_it(tmp_path, name):
    folder = tmp_path / name
    claim = claim_model_dir(settings(folder, learning_rate=9.0), "data", True, "first")
    claim.begin()
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "step-00000001.npz").write_bytes(b"")
    with pytest.raises(UserError), claim.until_it_saves():
        raise UserError("the loss is no number")
    with pytest.raises(UserError, match="cannot resume"):
        claim_model_dir(settings(folder, learning_rate=0.1), "data", True, "mended")


def test_a_run_that_lost_a_peer_or_the_folder_before_its_first_checkpoint_is_still_what_it_was(tmp_path):
    claim = by_hand(settings(tmp_path))
    with pytest.raises(PeerLostError), claim.until_it_saves():
        raise PeerLostError
    assert by_hand(settings(tmp_path)).id == claim.id
    other = json.dumps({**claim.content, "id": claim.id + 1})
    (tmp_path / "run.json").write_text(other)
    with pytest.raises(UserError), claim.until_it_saves():
        raise UserError("another run has taken it")
    assert (tmp_path / "run.json").read_text() == other


def test_a_run_that_began_beside_what_no_run_has_left_makes_no_room_for_one_that_deletes_it(tmp_path):
    (tmp_path / "export").mkdir()
    begun_and_failed(tmp_path, 9.0)
    with pytest.raises(UserError, match="cannot resume"):
        claim_model_dir(settings(tmp_path, learning_rate=0.1), "data", True, "mended")
    assert (tmp_path / "export").exists()


def test_a_run_after_one_that_failed_at_once_still_knows_whom_that_one_displaced(tmp_path):
    claim_model_dir(settings(tmp_path), "data", True, "first").begin()
    begun_and_failed(tmp_path, 9.0, restart=True)
    claim_model_dir(settings(tmp_path, learning_rate=0.1), "data", True, "third").begin()
    with pytest.raises(UserError, match="another run has taken"):
        claim_model_dir(settings(tmp_path), "data", True, "first")
