"""What a finished job says of itself, beyond what a whole job's tests look at."""

from __future__ import annotations

import itertools

import pytest

from beam_jobs import summary
from beam_jobs.work import Reject
from tests.beam_jobs.making import Archive, Run, noise, planet


def test_the_same_rejects_are_the_same_lines_in_whatever_order_they_come() -> None:
    rejects = [Reject("b", "empty", ""), Reject("a", "not_jpeg", ""), Reject("été", "no_label", "")]
    (lines,) = {summary.reject_lines(order) for order in itertools.permutations(rejects)}
    assert [line[:12] for line in lines.decode().splitlines()] == [
        '{"name": "a"',
        '{"name": "b"',
        '{"name": "ét',
    ]


@pytest.mark.parametrize(("given", "told"), [("png", "png"), ("jpeg", "jpeg"), ("keep", "jpeg")])
def test_features_json_tells_how_pictures_are_held(given: str, told: str) -> None:
    features = summary.features_json(given, 4)["featuresDict"]["features"]
    assert features["image/encoded"]["image"]["encodingFormat"] == told
    assert features["image/class/multi_hot"]["tensor"]["shape"] == {"dimensions": ["4"]}


def test_names_and_tags_do_not_reach_the_terminal_as_commands(archive: Archive, run: Run) -> None:
    archive.put("good", planet(noise(1)), "clear \x1b[31mred")
    archive.put("evil\x1b[2J", b"")
    failed = run(archive)
    assert (failed.code, "\x1b" in failed.err) == (2, False)
    assert r"(the first: evil\x1b[2J, empty)" in failed.err
    assert failed.rejects[0]["name"] == "evil\x1b[2J"
    done = run(archive, "--max_bad_fraction", "0.5")
    assert (done.code, "\x1b" in done.out) == (0, False)
    assert r"3: \x1b[31mred clear primary" in done.out
    assert done.canopy["vocabulary"] == ["\x1b[31mred", "clear", "primary"]
