"""What a data folder says of itself, and when it is refused."""

import json

import pytest

from canopy.cli import UserError
from trainer import data_info

FACTS = {
    "format_version": 1,
    "dataset": "planet",
    "vocabulary": ["clear", "water"],
    "fingerprint": "f" * 64,
    "splits": {
        "train": {
            "records": 3,
            "tags": {"clear": 2},
            "shards": [{"name": "a", "records": 2}, {"name": "b", "records": 1}],
        },
        "validation": {"records": 0, "tags": {}, "shards": []},
    },
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "canopy.json").write_text(json.dumps(FACTS))
    (tmp_path / "dataset_info.json").write_text("{}")
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_a_whole_folder_is_read(folder):
    info = data_info.read(f"{folder}/")
    assert info.vocabulary == ("clear", "water")
    assert [(s.path, s.records) for s in info.shards("train")] == [(f"{folder}/a", 2), (f"{folder}/b", 1)]


def test_a_tags_prior_is_its_share_of_the_training_records(folder):
    assert data_info.read(str(folder)).prior == [2 / 3, 0.0]


def test_what_preprocessing_writes_is_read(records):
    info = data_info.read(str(records))
    assert sum(shard.records for shard in info.shards("train")) == info.facts["splits"]["train"]["records"]
    assert len(info.shards("train")) == 3


def test_a_folder_without_its_commit_marker_is_refused(folder):
    (folder / "dataset_info.json").unlink()
    with pytest.raises(UserError, match=r"dataset_info\.json"):
        data_info.read(str(folder))


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
    with pytest.raises(UserError, match="upgrade"):
        data_info.read(str(folder))


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"format_version": 1}', '{"format_version": 1, "splits": []}']
)
def test_a_damaged_canopy_json_is_refused(folder, text):
    (folder / "canopy.json").write_text(text)
    with pytest.raises(UserError, match=r"canopy\.json"):
        data_info.read(str(folder))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_without_records_is_refused_with_those_there_are(folder, split):
    with pytest.raises(UserError, match=rf"{split}.*train \(3\)"):
        data_info.read(str(folder)).shards(split)


def test_a_run_starts_from_an_export_of_the_same_tags_in_the_same_order_alone(folder, tmp_path):
    info = data_info.read(str(folder))
    with pytest.raises(UserError, match=r"--init_from .*nowhere: there is no model\.json"):
        info.check_start(f"{tmp_path}/nowhere")
    for text, said in [
        ("{", "cannot be understood"),
        ("[]", "cannot be understood"),
        (
            '{"classes": ["water", "clear"]}',
            "its 2 tags are not the data set's 2 in their order: number 1 is water there and clear here",
        ),
        ('{"classes": ["clear"]}', "number 2 is missing there and water here"),
        ('{"classes": ["clear", "water", "none"]}', "number 3 is none there and missing here"),
    ]:
        (tmp_path / "model.json").write_text(text)
        with pytest.raises(UserError, match=said):
            info.check_start(str(tmp_path))
    (tmp_path / "model.json").write_text('{"classes": ["clear", "water"]}')
    info.check_start(str(tmp_path))
