"""The training curves: read from whatever a killed or resumed run left."""

import io
import json

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from trainer.report import training


def lines(*documents):
    return "".join(json.dumps(document) + "\n" for document in documents)


def parsed(text):
    return training.parse(text.encode().splitlines(keepends=True))


def test_steps_and_validations_are_parted_and_sorted():
    found = parsed(
        lines(
            {"step": 10, "epoch": 1, "loss": 0.5},
            {"step": 12, "epoch": 1, "validation": {"loss": 0.4, "f2": 0.8}},
            {"step": 5, "epoch": 1, "loss": 0.7},
        )
    )
    assert found == training.Curves([5, 10], [0.7, 0.5], [12], [0.4], [0.8], 1)


def test_of_a_step_taken_twice_the_last_counts():
    found = parsed(lines({"step": 10, "loss": 0.5}, {"step": 10, "loss": 0.25}))
    assert found is not None
    assert found.losses == [0.25]


def test_a_run_of_which_only_validations_are_known_has_its_curves():
    found = parsed(lines({"step": 12, "epoch": 1, "validation": {"loss": 0.4, "f2": 0.8}}))
    assert found == training.Curves([], [], [12], [0.4], [0.8], 1)


def test_a_line_that_is_nested_without_end_is_passed_over():
    assert parsed("[" * 100_000) is None


def test_a_cut_line_and_what_is_no_number_are_passed_over():
    text = lines({"step": 1, "loss": 0.5}, {"step": 2, "loss": float("nan")}) + '{"step": 3, "lo'
    found = parsed(text)
    assert found is not None
    assert found.steps == [1]


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN", "1e999", "1" + "0" * 400])
@pytest.mark.parametrize(
    "line", ['"step": %s, "loss": 0.5', '"step": 2, "epoch": %s, "loss": 0.5', '"step": 2, "loss": %s']
)
def test_a_step_an_epoch_or_a_loss_that_is_no_number_is_passed_over(line, number):
    found = parsed(lines({"step": 1, "epoch": 1, "loss": 0.5}) + f"{{{line % number}}}")
    assert found == training.Curves([1], [0.5], [], [], [], 1)


@given(st.text())
def test_any_text_is_read_without_an_error(text):
    parsed(text)


def test_the_curves_are_those_beside_the_export_wherever_one_stands(tmp_path, monkeypatch):
    (tmp_path / "export").mkdir()
    assert training.read(str(tmp_path / "export")) is None
    (tmp_path / "metrics.jsonl").write_text(lines({"step": 1, "loss": 0.5}))
    assert training.read(f"{tmp_path}/export/") is not None
    monkeypatch.chdir(tmp_path / "export")
    assert training.read(".") is not None


def test_the_curves_of_an_export_in_a_store_are_looked_for_there(monkeypatch):
    asked = []

    def opened(path, _):
        asked.append(path)
        return io.BytesIO()

    monkeypatch.setattr(tf.io.gfile, "GFile", opened)
    assert training.read("gs://bucket/run/export/") is None
    assert asked == ["gs://bucket/run/metrics.jsonl"]


def test_an_export_beside_curves_that_may_not_be_read_stands_alone(tmp_path, monkeypatch):
    def refuses(*_):
        raise tf.errors.PermissionDeniedError(None, None, "no right")

    (tmp_path / "metrics.jsonl").write_text(lines({"step": 1, "loss": 0.5}))
    monkeypatch.setattr(tf.io.gfile, "GFile", refuses)
    assert training.read(str(tmp_path / "export")) is None
