"""Glob patterns over the names of a store's objects."""

from __future__ import annotations

import glob
import warnings

import pytest

from beam_jobs.stores import objects


@pytest.mark.parametrize("name", ["run[1]/a", "[[x]]/*?", "]a[!b]", "a[b", "[!x]/[&&~~||"])
def test_a_name_made_literal_matches_itself_and_nothing_else(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = objects.expression(glob.escape(name))
    assert found.fullmatch(name)
    assert not found.fullmatch(f"{name}x")
    assert not found.fullmatch(name.replace("[", "").replace("]", "").replace("*", "star"))
    assert objects.fixed_part(glob.escape(name)) == name


@pytest.mark.parametrize("pattern", ["x[&&a].jpg", "x[||a].jpg", "x[[a].jpg", "x[~~a].jpg"])
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
