"""How a search draws its trials and ends bad ones."""

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer import config
from trainer.tuning import sampling, search

FOLDERS = ["--data", "d", "--model_dir", "m"]
WHOLE = "batch_size=1..1024:log"
SPACE = search.chosen(["learning_rate=1e-4..1e-2:log", "image_size=64..128:32", "augment=d4,none", WHOLE], [])


def drawn(seed, count):
    """What `count` trials of a study draw, one after the other."""
    study = optuna.create_study(sampler=sampling.SeededSampler(seed))
    return [study.ask(sampling.distributions(SPACE)).params for _ in range(count)]


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31))
def test_whatever_is_drawn_is_read_by_training_as_it_was_drawn(seed):
    texts = ["batch_size=8..64:log", "bn_momentum=0.5..0.9:0.1", "average_decay=0.999..0.99999"]
    space = search.chosen([*texts, "warmup_share=0.0123456,0.9999999", "mixup=0..1:0.00001"], [])
    study = optuna.create_study(sampler=sampling.SeededSampler(seed))
    drawn = space.tidy(study.ask(sampling.distributions(space)).params)
    settings = config.parse([*FOLDERS, *search.flags(drawn)])
    assert {name: getattr(settings, name) for name in drawn} == drawn
    assert all(drawn[name] in part for name, part in space.parts.items())


def test_a_seed_draws_the_same_again_and_another_seed_and_another_trial_something_else():
    first = drawn(7, 3)
    assert drawn(7, 3) == first
    assert drawn(8, 1)[0] not in first
    assert first[0] != first[1]


def test_a_range_a_stepped_range_and_a_choice_are_drawn_from_all_over():
    trials = drawn(0, 60)
    assert {each["image_size"] for each in trials} == {64, 96, 128}
    assert {each["augment"] for each in trials} == {"d4", "none"}
    # Evenly in the logarithm: as many below the middle one, 0.001 or 32, as above it.
    assert 15 < sum(each["learning_rate"] < 1e-3 for each in trials) < 45
    assert 15 < sum(each["batch_size"] < 32 for each in trials) < 45


def epochs_of_a_bad_trial(kind, epochs, after):
    """In which epoch a trial that is far worse is ended behind `after` good ones, None where it never is."""
    pruner = sampling.make_pruner(kind, epochs)
    study = optuna.create_study(direction="maximize", study_name="search", pruner=pruner)
    for _ in range(after):
        trial = study.ask()
        for epoch in range(1, epochs + 1):
            trial.report(0.8, epoch)
            trial.should_prune()  # asked after each epoch, as of every trial
        study.tell(trial, 0.8)
    trial = study.ask()
    for epoch in range(1, epochs + 1):
        trial.report(0.1, epoch)
        if trial.should_prune():
            return epoch
    return None


@pytest.mark.parametrize(("epochs", "ended"), [(3, 2), (6, 3), (12, 5)])
def test_half_of_the_others_end_a_worse_trial_behind_a_third_of_its_epochs(epochs, ended):
    assert epochs_of_a_bad_trial("median", epochs, sampling.UNPRUNED_TRIALS) == ended


def test_too_few_others_end_none():
    assert epochs_of_a_bad_trial("median", 12, sampling.UNPRUNED_TRIALS - 1) is None


@pytest.mark.parametrize(("epochs", "ended"), [(4, {1, 3}), (9, {1, 3, 9}), (18, {2, 6, 18})])
def test_hyperband_ends_some_bad_trials_early_and_lets_others_run(epochs, ended):
    # By its number a trial falls to a bracket: they first look at it after a ninth, a third, and all epochs.
    assert {epochs_of_a_bad_trial("hyperband", epochs, after) for after in range(12, 20)} == ended


def test_without_a_pruner_every_trial_ends_by_itself():
    assert epochs_of_a_bad_trial("none", 9, 12) is None
