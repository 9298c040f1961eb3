"""An export's description: what is read from it, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canopy import model_info
from canopy.cli import UserError
from canopy.model_info import ModelInfo

DESCRIBED = {
    "format_version": 1,
    "classes": ["clear", "primary", "water"],
    "thresholds": [0.2, 0.25, 0.1],
    "image_size": 96,
    "metrics": {"constant_tags": ["clear", "primary"]},
}


def parse(**changes: Any) -> ModelInfo:
    return model_info.parse(json.dumps({**DESCRIBED, **changes}).encode(), "export")


def test_the_models_description_is_read() -> None:
    info = parse(dataset={"name": "planet"})
    assert info.folder == "export"
    assert info.classes == ("clear", "primary", "water")
    assert info.thresholds == (0.2, 0.25, 0.1)
    assert info.constant == ("clear", "primary")
    assert info.image_size == 96
    assert info.document["dataset"] == {"name": "planet"}


def test_a_model_may_know_one_class_alone() -> None:
    one: dict[str, Any] = {"classes": ["water"], "thresholds": [0.1], "metrics": {"constant_tags": ["water"]}}
    assert parse(**one).constant == ("water",)


def test_an_export_that_does_not_say_that_it_reduces_pictures_decodes_them_whole() -> None:
    assert parse().least_side == 0
    assert parse(decodes_reduced=True).least_side == 96


def test_a_folder_without_model_json_is_no_export() -> None:
    with pytest.raises(UserError, match=r"--model export: there is no model\.json.* the folder export in a"):
        model_info.parse(None, "export")


def test_a_newer_version_says_what_to_do() -> None:
    with pytest.raises(UserError, match="version 2, and this Canopy reads up to 1: upgrade Canopy"):
        parse(format_version=2)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"{}", b'{"format_version": "one"}'),
        *(b'{"format_version": Infinity}', b"[" * 100_000),
    ],
)
def test_a_damaged_description_is_one_sentence_with_its_path(content: bytes) -> None:
    with pytest.raises(UserError, match=r"export/model\.json cannot be understood") as caught:
        model_info.parse(content, "export")
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=40) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_whatever_the_bytes_are_they_are_refused_and_never_a_bug(content: bytes | str) -> None:
    with pytest.raises(UserError):
        model_info.parse(content if isinstance(content, bytes) else content.encode(), "export")


@pytest.mark.parametrize(
    "changes",
    [
        {"thresholds": [0.2, 0.25]},
        {"thresholds": [0.2, 0.25, 0.1, 0.1]},
        {"thresholds": [0.2, None, 0.1]},
        {"thresholds": [0.2, float("nan"), 0.1]},
        {"thresholds": 0.2},
        {"classes": [], "thresholds": [], "metrics": {"constant_tags": []}},
        {"classes": ["clear", "primary", ""]},
        {"classes": ["clear", "primary", 3]},
        {"classes": ["clear", "primary", "clear"]},
        {"metrics": {}},
        {"metrics": {"constant_tags": ["fog"]}},
        {"metrics": {"constant_tags": [["fog"]]}},
        {"metrics": None},
        {"image_size": 0},
        {"image_size": None},
    ],
)
def test_a_description_that_does_not_add_up_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"model\.json cannot be understood"):
        parse(**changes)
