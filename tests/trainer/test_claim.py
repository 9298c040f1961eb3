"""Whose run a model_dir holds."""

import json
import re
import shutil

import pytest
import tensorflow as tf

from canopy.cli import UserError
from tests.trainer.stale import hide, remember
from trainer import claim as claims
from trainer.claim import claim_model_dir, run_id
from trainer.config import Config


def settings(folder, **changes):
    return Config(data="", model_dir=str(folder), **changes)


def by_hand(config, fingerprint="data", is_chief=True):
    """A start without a launcher, which is a run of its own."""
    return claim_model_dir(config, fingerprint, is_chief, run_id({}))


def test_the_same_run_is_resumed(tmp_path):
    by_hand(settings(tmp_path))
    by_hand(settings(tmp_path, log_steps=3))
    assert json.loads((tmp_path / "run.json").read_text())["fingerprint"] == "data"


def test_other_settings_are_refused_and_named(tmp_path):
    by_hand(settings(tmp_path))
    with pytest.raises(UserError, match=r"--batch_size: was 64, is 8.*--restart"):
        by_hand(settings(tmp_path, batch_size=8))


def test_a_model_that_is_to_be_trained_on_is_told_how(tmp_path):
    by_hand(settings(tmp_path))
    with pytest.raises(UserError) as without:
        by_hand(settings(tmp_path, epochs=9))
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "model.json").write_text("{}")
    with pytest.raises(UserError, match=rf"epochs.*--model_dir, where --init_from {tmp_path}/export goes on"):
        by_hand(settings(tmp_path, epochs=9))
    assert "--init_from" not in str(without.value)


def test_other_data_are_refused(tmp_path):
    by_hand(settings(tmp_path))
    with pytest.raises(UserError, match="fingerprint was data, is other"):
        by_hand(settings(tmp_path), "other")


@pytest.mark.parametrize("run", ["first", "second"])
def test_a_worker_that_is_not_the_chief_finds_nothing_wrong_for_it_may_see_what_was_there_before(
    tmp_path, run
):
    claim_model_dir(settings(tmp_path), "data", True, "first").finish(40)
    leave_things(tmp_path)
    (tmp_path / "export" / "model.json").write_text("{}")
    unlike = settings(tmp_path, batch_size=8)
    assert claim_model_dir(settings(tmp_path), "data", False, run).finished == 40
    for config, data in ((unlike, "data"), (settings(tmp_path), "other")):
        assert not claim_model_dir(config, data, False, "second").finished
        assert claim_model_dir(config, data, False, "first").finished == 40
    for content in ("", "{}", '{"format_version": 99}'):
        (tmp_path / "run.json").write_text(content)
        assert not claim_model_dir(settings(tmp_path), "data", False, run).finished


def test_other_settings_are_refused_also_where_another_start_of_the_same_run_had_them(tmp_path):
    claim_model_dir(settings(tmp_path), "data", True, "first")
    with pytest.raises(UserError, match="--batch_size: was 64, is 8"):
        claim_model_dir(settings(tmp_path, batch_size=8), "data", True, "first")


def leave_things(folder):
    for name in ("checkpoints", "export", "export.partial", "export.earlier", "logs", "notes"):
        (folder / name).mkdir()
    (folder / "metrics.jsonl").write_text("{}")


@pytest.mark.parametrize(("changes", "data"), [({}, "data"), ({"batch_size": 8}, "other")])
def test_restart_deletes_once_a_run_and_not_what_the_run_itself_has_reached(tmp_path, changes, data):
    claim_model_dir(settings(tmp_path), "data", True, "first")
    leave_things(tmp_path)
    again = settings(tmp_path, restart=True, **changes)
    claim_model_dir(again, data, True, "second").begin()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "run.json"]
    assert json.loads((tmp_path / "run.json").read_text())["config"]["batch_size"] == again.batch_size
    (tmp_path / "checkpoints").mkdir()
    for is_chief in (True, False):
        claim_model_dir(again, data, is_chief, "second").begin()
    assert (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("restart", [False, True])
def test_a_worker_that_is_not_the_chief_deletes_and_takes_over_nothing(tmp_path, restart):
    claim_model_dir(settings(tmp_path), "data", True, "first")
    leave_things(tmp_path)
    before = files(tmp_path)
    claim_model_dir(settings(tmp_path, restart=restart), "data", False, "second").begin()
    assert (tmp_path / "checkpoints").exists()
    assert files(tmp_path) == before


def test_the_number_of_a_run_is_the_same_at_all_its_starts_and_no_other_runs(tmp_path):
    first = claim_model_dir(settings(tmp_path), "data", True, "first")
    assert first.id > 0
    first.finish(40)
    assert claim_model_dir(settings(tmp_path), "data", False, "later").id == first.id
    again = settings(tmp_path, restart=True)
    second = claim_model_dir(again, "data", True, "second")
    second.begin()
    assert claim_model_dir(again, "data", True, "second").id == second.id != first.id


def test_a_run_that_another_has_displaced_ends_with_what_to_do(tmp_path):
    first = claim_model_dir(settings(tmp_path), "data", True, "first")
    follower = claim_model_dir(settings(tmp_path), "data", False, "first")
    first.check()
    claim_model_dir(settings(tmp_path, restart=True), "data", True, "second").begin()
    before = files(tmp_path)
    for ends in (first.check, lambda: first.finish(40)):
        with pytest.raises(UserError, match=r"another run has taken .*--model_dir of its own"):
            ends()
    follower.check()
    with pytest.raises(UserError, match="a mistake"), first.until_it_begins():
        raise UserError("a mistake")
    assert files(tmp_path) == before


def test_of_two_that_go_on_with_one_run_the_later_one_does_once_it_begins(tmp_path):
    first = claim_model_dir(settings(tmp_path), "data", True, "first")
    claim_model_dir(settings(tmp_path), "data", True, "first").begin()  # its own chief, started again
    second = claim_model_dir(settings(tmp_path), "data", True, "second")
    first.check()
    second.begin()
    assert second.id == first.id
    for ends in (first.check, lambda: first.finish(40)):
        with pytest.raises(UserError, match="another run has taken"):
            ends()
    for restart in (False, True):  # nor does it come back, its worker lost
        with pytest.raises(UserError, match="another run has taken"):
            claim_model_dir(settings(tmp_path, restart=restart), "data", True, "first")
    second.finish(40)
    for _ in range(2):
        claim_model_dir(settings(tmp_path), "data", True, "second").finish(40)


def test_one_that_goes_on_with_a_run_takes_no_other_that_has_replaced_it_meanwhile(tmp_path):
    claim_model_dir(settings(tmp_path), "data", True, "first")
    second = claim_model_dir(settings(tmp_path), "data", True, "second")
    claim_model_dir(settings(tmp_path, restart=True), "data", True, "third").begin()
    with pytest.raises(UserError, match="another run has taken"):
        second.begin()
    assert json.loads((tmp_path / "run.json").read_text())["run"] == "third"
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match="another run has taken"):
        second.begin()


@pytest.mark.parametrize("restart", [False, True])
def test_a_displaced_run_that_restarts_in_place_does_not_take_the_folder_back(tmp_path, restart):
    for run in ("first", "second", "third"):
        claim_model_dir(settings(tmp_path, restart=True), "data", True, run).begin()
    before = files(tmp_path)
    for displaced in ("first", "second"):
        for is_chief in (True, False):
            with pytest.raises(UserError, match="another run has taken"):
                claim_model_dir(settings(tmp_path, restart=restart), "data", is_chief, displaced)
    assert files(tmp_path) == before


def test_a_run_whose_run_json_is_gone_or_damaged_ends(tmp_path):
    claim = by_hand(settings(tmp_path))
    for content in ("{", "[]", '{"id": [7]}'):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(UserError, match="another run has taken"):
            claim.check()
    (tmp_path / "run.json").unlink()
    with pytest.raises(UserError, match=r"run\.json is gone"):
        claim.check()


def test_a_storage_that_does_not_answer_is_no_reason_to_end(tmp_path, monkeypatch):
    def fail(*_):
        raise tf.errors.UnavailableError(None, None, "try again")

    claim = by_hand(settings(tmp_path))
    monkeypatch.setattr(tf.io.gfile, "GFile", fail)
    claim.check()


def test_a_run_from_before_there_were_numbers_goes_on_without_one(tmp_path):
    by_hand(settings(tmp_path))
    path = tmp_path / "run.json"
    path.write_text(
        json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k not in ("id", "run")})
    )
    claim = by_hand(settings(tmp_path))
    assert claim.id == 0
    claim.begin()
    claim.check()
    by_hand(settings(tmp_path, restart=True)).begin()
    with pytest.raises(UserError, match="another run has taken"):
        claim.check()


def test_an_earlier_run_that_saves_while_it_is_deleted_does_not_keep_the_folder(tmp_path, monkeypatch):
    def save_meanwhile(path):
        monkeypatch.undo()
        monkeypatch.setattr(claims, "RETRY_SECONDS", 0.01)
        raise tf.errors.FailedPreconditionError(None, None, f"{path}; Directory not empty")

    claim_model_dir(settings(tmp_path), "data", True, "first")
    leave_things(tmp_path)
    monkeypatch.setattr(tf.io.gfile, "rmtree", save_meanwhile)
    claim_model_dir(settings(tmp_path, restart=True), "data", True, "second").begin()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "run.json"]


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_restart_deletes_nothing_before_the_run_begins(tmp_path):
    claim_model_dir(settings(tmp_path), "data", True, "first").finish(40)
    leave_things(tmp_path)
    (tmp_path / "export" / "model.json").write_text("{}")
    before = files(tmp_path)
    again = settings(tmp_path, restart=True, batch_size=8)
    for _ in range(2):  # a worker is lost before the run begins, and all are started again
        claim = claim_model_dir(again, "data", True, "second")
        assert not claim.finished
        with pytest.raises(UserError), claim.until_it_begins():
            raise UserError("a mistake")
        assert files(tmp_path) == before
    claim.begin()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "run.json"]


def test_restart_half_deleted_is_done_again(tmp_path, monkeypatch):
    claim_model_dir(settings(tmp_path), "data", True, "first")
    leave_things(tmp_path)
    removed = tf.io.gfile.rmtree
    monkeypatch.setattr(tf.io.gfile, "rmtree", lambda path: removed(path) if "logs" not in path else 1 / 0)
    again = settings(tmp_path, restart=True)
    with pytest.raises(ZeroDivisionError):
        claim_model_dir(again, "data", True, "second").begin()
    monkeypatch.undo()
    claim_model_dir(again, "data", True, "second").begin()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "run.json"]


def test_restart_refuses_what_no_run_is_known_to_have_left(tmp_path):
    leave_things(tmp_path)
    (tmp_path / "export" / "model.json").write_text("{}")
    before = files(tmp_path)
    left = "metrics.jsonl, checkpoints, export, export.partial, export.earlier, logs"
    with pytest.raises(UserError, match=f"holds {re.escape(left)} and no run.json,.* --restart may delete"):
        claim_model_dir(settings(tmp_path, restart=True), "data", True, "first")
    assert files(tmp_path) == before


def test_a_run_refuses_to_replace_an_export_that_no_run_is_known_to_have_left(tmp_path):
    leave_things(tmp_path)
    for name in ("export.partial", "export.earlier"):
        (tmp_path / name / "of_mine").write_text("")
    (tmp_path / "export").rmdir()
    (tmp_path / "export").write_text("a file")
    before = files(tmp_path)
    with pytest.raises(UserError, match=r"holds export, export\.partial, export\.earlier and .* export may"):
        by_hand(settings(tmp_path))
    assert files(tmp_path) == before


def test_a_run_may_begin_beside_what_it_only_adds_to(tmp_path):
    leave_things(tmp_path)
    (tmp_path / "logs" / "of_mine").write_text("")
    assert by_hand(settings(tmp_path)).writes


def test_restart_in_a_folder_without_a_run_is_a_first_run(tmp_path):
    (tmp_path / "notes").mkdir()
    claim = claim_model_dir(settings(tmp_path, restart=True), "data", True, "first")
    assert json.loads((tmp_path / "run.json").read_text())["run"] == "first"
    claim.begin()
    assert (tmp_path / "notes").exists()


def test_restart_gets_over_a_damaged_or_newer_run_json(tmp_path):
    for text in ("{", "[]", '{"format_version": 99}'):
        (tmp_path / "run.json").write_text(text)
        claim_model_dir(settings(tmp_path, restart=True), "data", True, "now").begin()
        assert json.loads((tmp_path / "run.json").read_text())["run"] == "now"


def test_a_newer_run_json_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "run.json").write_text('{"format_version": 99}')
    with pytest.raises(UserError, match=r"version 99.*upgrade Canopy.*--restart"):
        by_hand(settings(tmp_path))


@pytest.mark.parametrize("content", [b"{", b'{"run": "\xff"}', b"7"], ids=["cut", "no_text", "a_number"])
def test_a_damaged_run_json_is_one_sentence_and_nobodys(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UserError, match=r"run\.json cannot be understood .*--restart"):
        by_hand(settings(tmp_path))
    claim = by_hand(settings(tmp_path, restart=True))
    with pytest.raises(UserError, match="another run has taken"):
        claim.check()


def test_a_finished_run_is_known_as_long_as_its_export_stands(tmp_path):
    claim = by_hand(settings(tmp_path))
    assert claim.finished == 0
    claim.finish(40)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "model.json").write_text("{}")
    assert by_hand(settings(tmp_path), is_chief=False).finished == 40
    (tmp_path / "export" / "model.json").unlink()
    assert by_hand(settings(tmp_path)).finished == 0


@pytest.mark.parametrize("restart", [False, True])
def test_a_run_that_another_machine_has_removed_is_begun_anew(tmp_path, monkeypatch, restart):
    remember(monkeypatch)
    folder = tmp_path / "run"
    claim = by_hand(settings(folder))
    leave_things(folder)
    claim.finish(40)
    for path in folder.iterdir():
        assert tf.io.gfile.exists(str(path))
        tf.io.gfile.isdir(str(path))
    shutil.rmtree(folder)
    anew = by_hand(settings(folder, restart=restart))
    assert anew.is_new
    assert not anew.finished


def test_an_export_that_another_machine_has_removed_is_made_again(tmp_path, monkeypatch):
    remember(monkeypatch)
    by_hand(settings(tmp_path)).finish(40)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "model.json").write_text("{}")
    assert by_hand(settings(tmp_path)).finished == 40
    shutil.rmtree(tmp_path / "export")
    assert not by_hand(settings(tmp_path)).finished


@pytest.mark.parametrize("restart", [False, True])
def test_a_run_that_another_machine_has_just_begun_is_gone_on_with(tmp_path, monkeypatch, restart):
    first = claim_model_dir(settings(tmp_path, restart=restart), "data", True, "job")
    (tmp_path / "logs").mkdir()
    hide(monkeypatch, tmp_path / "run.json")
    again = claim_model_dir(settings(tmp_path, restart=restart), "data", True, "job")
    assert (again.id, again.is_new) == (first.id, False)


def test_starts_of_one_run_share_what_the_launcher_gave_them():
    assert run_id({"CANOPY_RUN_ID": "job"}) == "job"
    assert run_id({}) != run_id({})
