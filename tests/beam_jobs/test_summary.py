"""What a finished job says of itself, beyond what a whole job's tests look at."""

from __future__ import annotations

import itertools

import pytest

from beam_jobs import summary
from beam_jobs.work import Reject


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
