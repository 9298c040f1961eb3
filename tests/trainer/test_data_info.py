"""What a data folder says of itself, and when it is refused."""

import copy
import dataclasses
import errno
import json
from pathlib import Path

import pytest
import tensorflow as tf

from canopy.cli import TryAgainError, UserError
from tests.trainer.stale import hide
from trainer import data_info
from trainer.config import Config

MISSING = object()
FACTS = {
    "format_version": 1,
    "dataset": "planet",
    "vocabulary": ["water", "clear"],
    "fingerprint": "f" * 64,
    "splits": {
        "train": {
            "records": 3,
            "tags": {"clear": 2},
            "shards": [{"name": "a", "records": 2}, {"name": "b", "records": 1}],
        },
        "validation": {"records": 0, "tags": {}, "shards": [{"name": "c", "records": 0}]},
    },
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "canopy.json").write_text(json.dumps(FACTS))
    (tmp_path / "dataset_info.json").write_text("{}")
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"records")
    return tmp_path


def test_a_whole_folder_is_read(folder):
    info = data_info.read(f"{folder}/")
    assert (info.name, info.vocabulary, info.fingerprint) == ("planet", ("water", "clear"), "f" * 64)
    assert [(s.path, s.records) for s in info.shards("train")] == [(f"{folder}/a", 2), (f"{folder}/b", 1)]


def test_a_tags_prior_is_its_share_of_the_training_records(folder):
    assert data_info.read(str(folder)).prior == [0.0, 2 / 3]


def test_what_preprocessing_writes_is_read(records):
    info = data_info.read(str(records))
    assert sum(shard.records for shard in info.shards("train")) == info.facts["splits"]["train"]["records"]
    assert len(info.shards("train")) == 3


@pytest.mark.parametrize("name", ["dataset_info.json", "canopy.json", "a"])
def test_a_folder_that_another_machine_has_just_committed_is_read(folder, monkeypatch, name):
    hide(monkeypatch, folder / name)
    assert len(data_info.read(str(folder)).shards("train")) == 2


def test_a_folder_without_its_commit_marker_is_refused(folder):
    (folder / "dataset_info.json").unlink()
    with pytest.raises(UserError, match=r"holds no dataset_info\.json.*: name the --output of a beam_jobs"):
        data_info.read(str(folder))


def test_a_folder_that_is_not_there_is_not_told_as_incomplete(tmp_path):
    with pytest.raises(
        UserError, match=f"^{tmp_path}/nowhere is no folder: name the --output of a beam_jobs"
    ):
        data_info.read(f"{tmp_path}/nowhere")


def test_a_folder_that_another_program_wrote_is_refused(folder):
    (folder / "canopy.json").unlink()
    with pytest.raises(UserError, match=r"no canopy\.json: it was not written by beam_jobs\.preprocess"):
        data_info.read(str(folder))


def test_a_name_that_the_system_does_not_take_is_one_sentence():
    with pytest.raises(UserError, match=r"cannot be read .*File name too long"):
        data_info.read("x" * 300)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        data_info.read(str(tmp_path / "nowhere"))


def test_a_newer_format_is_refused_with_what_to_do(folder):
    (folder / "canopy.json").write_text(json.dumps({**FACTS, "format_version": 2}))
    with pytest.raises(UserError, match=r"^\S+ has data format version 2, .*upgrade"):
        data_info.read(str(folder))


@pytest.mark.parametrize("text", [b"\xff", b"{", b"[]", b"{}", b'{"format_version": "1"}'])
@pytest.mark.parametrize("scheme", ["", "file://"], ids=["local", "by TensorFlow"])
def test_a_damaged_canopy_json_is_refused(folder, text, scheme):
    (folder / "canopy.json").write_bytes(text)
    with pytest.raises(UserError, match=r"canopy\.json cannot be understood"):
        data_info.read(f"{scheme}{folder}")


def changed(facts, path, value):
    """A copy of canopy.json's content with another value at a path of keys; MISSING: with none."""
    found = made = copy.deepcopy(facts)
    *keys, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in keys:
        found = found[key]
    found[last] = value
    if value is MISSING:
        del found[last]
    return made


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("format_version", True, "must be a whole number from 0 on, and is true"),
        ("dataset", MISSING, "is missing"),
        ("fingerprint", 7, "must be a text, and is 7"),
        ("vocabulary", "water", 'must be a list, and is "water"'),
        ("vocabulary.1", None, "must be a text, and is null"),
        ("splits", [], r"must be an object, and is \[\]"),
        ("splits.validation", 3, "must be an object, and is 3"),
        ("splits.train.records", MISSING, "is missing"),
        ("splits.train.records", "3", 'must be a whole number from 0 on, and is "3"'),
        ("splits.train.tags", MISSING, "is missing"),
        ("splits.train.tags", ["clear"], r'must be an object, and is \["clear"\]'),
        ("splits.train.tags.clear", 0.5, "must be a whole number from 0 on, and is 0.5"),
        ("splits.train.shards", {}, "must be a list, and is {}"),
        ("splits.train.shards.1.name", MISSING, "is missing"),
        ("splits.train.shards.1.name", "../other/shard", 'must be a file\'s name, and is "../other/shard"'),
        ("splits.train.shards.1.records", -1, "must be a whole number from 0 on, and is -1"),
        ("splits.train.shards.0.bytes", "7", 'must be a whole number from 0 on, and is "7"'),
        ("splits.train.shards.0.crc32c", 7, "must be a text, and is 7"),
    ],
)
def test_a_key_that_is_missing_or_holds_something_else_is_named(folder, path, value, said):
    (folder / "canopy.json").write_text(json.dumps(changed(FACTS, path, value)))
    with pytest.raises(UserError, match=rf"canopy\.json cannot be understood: {path} {said}$"):
        data_info.read(str(folder))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("images", MISSING),
        ("images.rejected", MISSING),
        ("images.suspicious", MISSING),
        ("images.suspicious", "none"),
        ("images.suspicious_names", {}),
        ("rejects.empty", "one"),
        ("splits.train.bytes", None),
    ],
)
def test_what_a_report_alone_tells_of_is_named_when_a_report_is_wanted(records, path, value):
    info = data_info.read(str(records))
    facts = {**info.facts, "rejects": {"empty": 1}}
    dataclasses.replace(info, facts=facts).check_counts()
    with pytest.raises(UserError, match=rf"canopy\.json cannot be understood: {path} "):
        dataclasses.replace(info, facts=changed(facts, path, value)).check_counts()


def test_a_folder_with_a_scheme_is_read_or_refused_as_any_other(folder):
    assert data_info.read(f"file://{folder}").shards("train")[1].path == f"file://{folder}/b"
    (folder / "dataset_info.json").unlink()
    with pytest.raises(UserError, match=r"no dataset_info\.json"):
        data_info.read(f"file://{folder}")


@pytest.mark.parametrize(
    ("scheme", "error", "kind"),
    [
        ("", OSError(errno.ESTALE, "Stale file handle"), TryAgainError),
        ("", OSError(errno.EACCES, "Permission denied"), UserError),
        ("file://", tf.errors.UnavailableError(None, None, "busy"), TryAgainError),
        ("file://", tf.errors.PermissionDeniedError(None, None, "no right"), UserError),
    ],
)
def test_a_storage_that_fails_for_a_while_is_no_mistake_of_the_users(
    folder, monkeypatch, scheme, error, kind
):
    def refuse(*_):
        raise error

    monkeypatch.setattr(Path, "is_file", refuse)
    monkeypatch.setattr(tf.io.gfile, "exists", refuse)
    with pytest.raises(kind, match=r"dataset_info\.json cannot be read"):
        data_info.read(f"{scheme}{folder}")


def test_a_batch_may_be_mostly_padding_and_not_all_but_nothing_else(folder):
    info = data_info.read(str(folder))
    info.check_batch(300)
    with pytest.raises(UserError, match="--batch_size 301 is over 100 times the 3 training records"):
        info.check_batch(301)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_without_records_is_refused_with_those_there_are(folder, split):
    with pytest.raises(UserError, match=rf"{split}.*train \(3\).*preprocess --splits"):
        data_info.read(str(folder)).shards(split)


def starting(export, **settings):
    return Config(data="", model_dir="", init_from=str(export), **settings)


def test_a_run_starts_from_an_export_of_the_same_tags_in_the_same_order_alone(folder, tmp_path):
    info = data_info.read(str(folder))
    with pytest.raises(
        UserError, match=r"--init_from .*nowhere: there is no model\.json, so it is no export$"
    ):
        info.check_start(starting(f"{tmp_path}/nowhere"))
    for text, said in [
        ("{", "cannot be understood"),
        ("[]", "cannot be understood"),
        ("{}", "cannot be understood"),
        (
            '{"classes": ["clear", "water"]}',
            "its 2 tags are not the data set's 2 in their order: number 1 is clear there and water here: pre",
        ),
        ('{"classes": ["water"]}', "number 2 is missing there and clear here$"),
        ('{"classes": ["water", "clear", "none"]}', "number 3 is none there and missing here: preprocess"),
    ]:
        (tmp_path / "model.json").write_text(text)
        with pytest.raises(UserError, match=said):
            info.check_start(starting(tmp_path))
    (tmp_path / "model.json").write_text('{"classes": ["water", "clear"]}')
    info.check_start(starting(tmp_path))


@pytest.mark.parametrize(
    ("its", "own", "said"),
    [
        ({"backbone": "keras", "alpha": 0.35}, {}, "of --alpha 0.35, .* of --alpha 1.0: add --alpha 0.35$"),
        ({"backbone": "hub:/a"}, {}, "of --backbone hub:/a, .* of --backbone keras: add --backbone hub:/a$"),
        ({"backbone": "keras", "alpha": 1.0}, {"backbone": "hub:/a"}, "add --backbone keras$"),
    ],
)
def test_a_run_of_another_network_is_told_the_flag_that_makes_it_the_exports(
    folder, tmp_path, its, own, said
):
    (tmp_path / "model.json").write_text(json.dumps({"classes": ["water", "clear"], "config": its}))
    with pytest.raises(UserError, match=f"--init_from .*{said}"):
        data_info.read(str(folder)).check_start(starting(tmp_path, **own))


@pytest.mark.parametrize(
    ("its", "own"),
    [
        ({"backbone": "keras", "alpha": 0.35}, {"alpha": 0.35}),
        ({"backbone": "hub:/a", "alpha": 0.35}, {"backbone": "hub:/b"}),
        ({}, {}),
        ("damaged", {}),
    ],
)
def test_a_run_of_the_exports_network_may_start_from_it(folder, tmp_path, its, own):
    (tmp_path / "model.json").write_text(json.dumps({"classes": ["water", "clear"], "config": its}))
    data_info.read(str(folder)).check_start(starting(tmp_path, **own))


def test_a_run_that_is_told_to_start_from_a_model_dir_hears_where_its_export_is(folder, tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "model.json").write_text("{}")
    with pytest.raises(UserError, match=f"so it is no export: name {tmp_path}/export$"):
        data_info.read(str(folder)).check_start(starting(tmp_path))
