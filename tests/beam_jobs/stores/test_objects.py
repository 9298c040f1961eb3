"""Glob patterns over the names of a store's objects."""

from __future__ import annotations

import glob
import io
import warnings

import pytest

from beam_jobs.stores import objects
from canopy.cli import UserError


@pytest.mark.parametrize("name", ["run[1]/a", "[[x]]/*?", "]a[!b]", "a[b", "[!x]/[&&~~||"])
def test_a_name_made_literal_matches_itself_and_nothing_else(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = objects.expression(glob.escape(name))
    assert found.fullmatch(name)
    assert not found.fullmatch(f"{name}x")
    assert not found.fullmatch(name.replace("[", "").replace("]", "").replace("*", "star"))
    assert objects.fixed_part(glob.escape(name)) == name


@pytest.mark.parametrize("pattern", ["x[&&a].jpg", "x[||a].jpg", "x[[a].jpg", "x[~~a].jpg", "x[^a].jpg"])
def test_what_means_something_else_in_an_expression_means_nothing_in_a_class(pattern: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = objects.expression(pattern)
    assert found.fullmatch("xa.jpg")
    assert found.fullmatch(f"x{pattern[2]}.jpg")
    assert not found.fullmatch("xb.jpg")


@pytest.mark.parametrize(
    ("pattern", "fixed"),
    [("t/*.jpg", "t/"), ("t/a[12]/b", "t/a"), ("a[[]1]/**", "a[1]/"), ("a", "a"), ("", "")],
)
def test_a_listing_begins_with_what_every_match_begins_with(pattern: str, fixed: str) -> None:
    assert objects.fixed_part(pattern) == fixed


def test_a_range_from_its_end_to_its_start_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="bad character range z-a"):
        objects.expression("[z-a].jpg")


def test_stars_and_question_marks_stand_for_what_is_within_a_folder_and_two_stars_for_more() -> None:
    names = ("a.jpg", "ab.jpg", ".jpg", "t/b.jpg", "a/jpg")
    for pattern, wanted in {
        "?.jpg": ["a.jpg"], "*.jpg": ["a.jpg", "ab.jpg", ".jpg"], "a?jpg": ["a.jpg"],
        "**.jpg": ["a.jpg", "ab.jpg", ".jpg", "t/b.jpg"],
    }.items():  # fmt: skip
        assert list(filter(objects.expression(pattern).fullmatch, names)) == wanted


def test_a_line_break_is_a_part_of_a_name_as_any_other() -> None:
    for pattern in ("a\nb", "a*", "a?b", "**", "a[\n]b"):
        assert objects.expression(pattern).fullmatch("a\nb")
    assert objects.fixed_part("a\nb*") == "a\nb"


def test_only_at_its_begin_does_a_mark_turn_a_class_round() -> None:
    assert objects.expression("[!a!]").fullmatch("^")
    assert not objects.expression("[!a!]").fullmatch("!")
    assert objects.expression("[a!]").fullmatch("!")


def test_an_address_without_a_bucket_is_a_mistake() -> None:
    with pytest.raises(UserError, match="gs:///a names no bucket"):
        objects.parts("gs:///a")


def test_a_reader_asks_for_nothing_outside_the_object() -> None:
    data = bytes(range(100))
    asked: list[tuple[int, int]] = []

    def read(start: int, length: int) -> bytes:
        asked.append((start, length))
        return data[start : start + length]

    with objects.reader(len(data), read) as file:
        assert file.seek(-10, io.SEEK_END) == file.tell() == 90
        assert file.read() == data[90:]
        assert file.seek(200) == 200
        assert file.read() == b""
        file.seek(5)
        assert file.read(3) == data[5:8]
        file.seek(2, io.SEEK_CUR)
        assert file.read(200) == data[10:]
        assert file.seek(-200, io.SEEK_END) == 0
    assert all(length == 0 or 0 < length <= len(data) - start for start, length in asked)


def test_a_reader_goes_on_behind_what_it_was_given_where_that_is_less() -> None:
    data = bytes(range(100))
    with objects.reader(len(data), lambda start, length: data[start : start + min(length, 7)]) as file:
        assert file.read() == data
