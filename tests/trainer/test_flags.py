"""A settings class as flags: what each kind of field takes, and what it refuses."""

from dataclasses import dataclass
from typing import Literal

import pytest

from canopy.cli import Parser, UserError
from trainer import flags
from trainer.flags import flag


@dataclass(frozen=True, kw_only=True)
class Made:
    folder: str = flag("where", metavar="FOLDER")
    count: int = flag("how many", 3)
    share: float = flag("how much", 0.5)
    kind: Literal["one", "other"] = flag("which", "one")
    switch: bool = flag("whether", False)
    more: tuple[str, ...] = ()  # no flag


def parser():
    made = Parser("made", "")
    flags.add(made, Made)
    return made


def parse(*words):
    return vars(parser().parse_args(["--folder", "f", *words]))


def test_each_field_that_is_a_flag_has_its_type_and_its_default():
    defaults = {"folder": "f", "count": 3, "share": 0.5, "kind": "one", "switch": False}
    assert parse() == defaults
    changed = {"count": 4, "share": 1.0, "kind": "other"}
    assert parse(*(f"--{name}={value}" for name, value in changed.items())) == defaults | changed


def test_the_help_says_what_stands_for_a_value():
    assert "--folder FOLDER" in parser().format_help()
    assert "--count N" in parser().format_help()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "--folder"),
        (["--folder", "\udcff"], "--folder: is no UTF-8 text"),
        (["--folder", "f", "--count", "1.5"], "--count"),
        (["--folder", "f", "--kind", "third"], "--kind"),
        (["--folder", "f", "--switch=maybe"], "--switch: must be true or false"),
        (["--folder", "f", "--more", "x"], "--more"),
    ],
)
def test_what_a_flag_does_not_take_is_named(words, named):
    with pytest.raises(UserError, match=named):
        parser().parse_args(words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [((), False), (("--switch",), True), (("--switch=true",), True), (("--switch=false",), False)],
)
def test_a_switch_can_be_given_a_value_as_manifests_must(words, expected):
    assert parse(*words)["switch"] is expected


@pytest.mark.parametrize(
    ("behind", "expected"),
    [((), ()), (("--",), ()), (("--", "--count", "5", "--", "x"), ("--count", "5", "--", "x"))],
)
def test_what_stands_behind_two_dashes_is_left_as_it_is(behind, expected):
    own, task = flags.before_task(parser(), ["--folder", "f", "--count", "4", *behind])
    assert (own["count"], task) == (4, expected)


def test_a_flag_of_trainer_task_before_them_is_told_where_it_belongs():
    with pytest.raises(UserError, match=r"--epochs 3: .* behind --"):
        flags.before_task(parser(), ["--folder", "f", "--epochs", "3"])
