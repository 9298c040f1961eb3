"""The space of a search: what its texts mean, what is refused, and that what is drawn are flags."""

import dataclasses

import pytest
from optuna.distributions import IntDistribution

from canopy.cli import UserError
from trainer import config
from trainer.config import Config
from trainer.tuning import sampling, search
from trainer.tuning.search import Choice, Range

FOLDERS = ["--data", "d", "--model_dir", "m"]


def test_a_range_a_stepped_range_and_a_choice_mean_what_they_say():
    texts = ["learning_rate=1e-4..1e-2:log", "image_size=64..120:32", "augment=none,d4", "epochs=2..5"]
    parts = search.chosen(texts, []).parts
    assert parts["learning_rate"] == Range(1e-4, 1e-2, log=True)
    assert parts["image_size"] == Range(64, 96, whole=True, step=32)
    assert parts["image_size"].probes() == (64, 96)
    assert parts["augment"] == Choice(("none", "d4"))
    assert search.chosen(["augment=none, d4"], []).parts["augment"] == parts["augment"]
    assert parts["epochs"] == Range(2, 5, whole=True)
    assert 3 in parts["epochs"]
    assert 6 not in parts["epochs"]
    assert 80 not in parts["image_size"]
    assert search.chosen(["weights=a/../w.h5"], []).parts["weights"] == Choice(("a/../w.h5",))


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("image_size=64..128:32", (64, 96, 128)),
        ("image_size=64..96:32", (64, 96)),
        ("dropout=0..0.3:0.1", (0.0, 0.1, 0.2, 0.3)),
        ("dropout=0..0.35:0.1", (0.0, 0.1, 0.2, 0.3)),
        ("dropout=0.1..0.3:0.2", (0.1, 0.3)),
        ("dropout=0..0.5", (0.0, 0.5)),
        ("dropout=0..0.5:0.00001", (0.0, 0.5)),  # too many to look at each
    ],
)
@pytest.mark.filterwarnings("error")  # Optuna's, of an end that is no step
def test_each_step_of_a_range_is_looked_at_before_a_search_and_the_last_is_its_end(text, steps):
    space = search.Space.of(dict([text.split("=")]))
    (part,) = space.parts.values()
    assert part.probes() == steps
    assert isinstance(part, Range)
    assert part.high == steps[-1]
    assert sampling.distributions(space)


def test_every_value_to_look_at_comes_up_however_many_other_flags_have():
    space = search.chosen(["image_size=64..160:32", "augment=d4,none", "epochs=2,3,4"], [])
    probes = list(space.probes())
    for name, part in space.parts.items():
        assert {probe[name] for probe in probes} == set(part.probes())


def test_what_is_fixed_is_not_searched_and_what_is_given_replaces_the_default():
    space = search.chosen(["weight_decay=0..0.1"], ["learning_rate", "image_size"])
    assert "learning_rate" not in space.parts
    assert "image_size" not in space.parts
    assert space.texts["weight_decay"] == "0..0.1"
    assert space.texts["augment"] == search.DEFAULTS["augment"]


def test_every_value_of_the_default_space_is_one_that_training_takes():
    space = search.chosen([], [])
    for probe in space.probes():
        settings = config.parse([*FOLDERS, *search.flags(probe)])
        assert {name: getattr(settings, name) for name in probe} == probe


def test_a_search_begins_with_the_defaults_of_training():
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    space = search.chosen(["learning_rate=0.1,0.2"], [])
    baseline = space.baseline()
    assert "learning_rate" not in baseline  # its default is not in the space
    assert baseline == {name: defaults[name] for name in space.parts if name != "learning_rate"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning_rate", "NAME=VALUES"),
        ("learning_rat=1,2", "no flag --learning_rat"),
        ("learning_rate=1e-2..1e-4", "first end"),
        ("learning_rate=1e-2..1e-2", "first end"),
        ("learning_rate=0..1:log", "above 0"),
        ("learning_rate=a..b", "'a' is not a number"),
        ("learning_rate=0..inf", "not finite"),
        ("learning_rate=0.1,,0.2", "'' is not a number"),
        ("learning_rate=0..1:2", "the step"),
        ("learning_rate=0..1:0", "the step"),
        ("learning_rate=0..1:1e-30", "the step"),
        (f"batch_size=8,{'9' * 400}", "is not a whole number"),
        ("init_from=a,b", "cannot be searched"),
        ("image_size=32.5..64", "whole number"),
        ("augment=d4,flip", "'flip' is none of"),
        ("augment=d4,d4", "twice"),
        ("require_gpu=true,false", "cannot be searched"),
        ("model_dir=a,b", "cannot be searched"),
        ("epochs=1..2", "is fixed"),
        ("backbone=", "empty"),
    ],
)
def test_a_text_that_means_nothing_is_refused_in_one_sentence(text, said):
    with pytest.raises(UserError, match="--space") as refused:
        search.chosen([text], ["epochs"])
    assert said in str(refused.value)


def test_a_space_in_which_all_is_fixed_is_refused():
    with pytest.raises(UserError, match="nothing is left"):
        search.chosen([], search.chosen([], []).parts)


def test_the_names_of_flags_are_found_with_and_without_an_equals_sign():
    assert search.names(["--epochs", "2", "--weights=none", "--require_gpu"]) == [
        "epochs",
        "weights",
        "require_gpu",
    ]


def test_a_switch_takes_its_value_behind_an_equals_sign():
    assert search.flags({"require_gpu": True, "epochs": 2}) == ["--require_gpu=true", "--epochs", "2"]


def test_a_whole_number_stays_one():
    (first, *_) = search.chosen(["epochs=2,3"], []).probes()
    assert search.flags({"epochs": first["epochs"]}) == ["--epochs", "2"]


def test_whole_numbers_are_drawn_from_a_range_of_them_evenly_in_their_logarithm_too():
    drawn_from = sampling.distributions(search.Space.of({"batch_size": "8..128:log", "epochs": "2..8:2"}))
    assert drawn_from == {
        "batch_size": IntDistribution(8, 128, log=True),
        "epochs": IntDistribution(2, 8, step=2),
    }


def test_a_drawn_number_is_short_and_a_narrow_range_stays_one():
    space = search.chosen(["average_decay=0.999..0.99999", "mixup=0..1:0.00025", "seed=0..99999"], [])
    drawn = {"learning_rate": 0.00012345678, "dropout": 0.0}
    drawn |= {"average_decay": 0.999951234567, "mixup": 0.12325, "seed": 12345}
    assert space.tidy(drawn) == {
        "learning_rate": 0.0001235,
        "dropout": 0.0,
        "average_decay": 0.9999512,
        "mixup": 0.12325,
        "seed": 12345,
    }
    uneven = search.chosen(["dropout=0.44444..0.66667"], [])
    assert uneven.tidy({"dropout": 0.666669}) == {"dropout": 0.66667}  # 0.6667 would be outside
    assert uneven.tidy({"dropout": 0.444441}) == {"dropout": 0.44444}


def test_a_value_that_was_named_is_trained_with_as_it_was_written():
    space = search.chosen(["average_decay=0.9999,0.99995"], [])
    assert [space.tidy(probe)["average_decay"] for probe in space.probes()][:2] == [0.9999, 0.99995]
    assert search.flags({"average_decay": 0.9999999}) == ["--average_decay", "0.9999999"]
