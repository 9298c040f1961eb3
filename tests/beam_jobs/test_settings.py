"""What a manifest gives: it fills in values, and can leave no flag out."""

from collections.abc import Callable, Sequence
from decimal import Decimal

import pytest

from beam_jobs import predict_settings, settings
from canopy.cli import UserError

PREPROCESS = ("--images=chips", "--labels=tags.csv", "--output=records")
PREDICT = ("--model=export", "--images=chips", "--output=submission.csv")


def test_none_stands_for_a_file_that_is_not_given() -> None:
    assert settings.parse((*PREPROCESS, "--vocabulary=none"))[0].vocabulary is None
    job, _ = predict_settings.parse((*PREDICT, "--sample_submission=none", "--scores=none"))
    assert job.sample_submission is None
    assert job.scores is None


def test_a_file_called_none_can_be_named_all_the_same() -> None:
    assert settings.parse((*PREPROCESS, "--vocabulary=./none"))[0].vocabulary == "./none"


@pytest.mark.parametrize("total", [1, 3, 7, 100, 1000, 61_191])
def test_a_fraction_allows_exactly_what_it_says_however_it_is_rounded(total: int) -> None:
    for count in range(0, total + 1, max(total // 1000, 1)):
        allowed = settings.fraction(str(Decimal(count) / total))
        assert not settings.exceeds(count, total, allowed)
        assert settings.exceeds(count + 1, total, allowed)
    assert not settings.exceeds(0, 0, 0.0)


@pytest.mark.parametrize("flag", ["vocabulary", "labels", "output"])
def test_an_empty_value_is_still_a_mistake(flag: str) -> None:
    with pytest.raises(UserError, match=f"--{flag} is empty"):
        settings.parse((*PREPROCESS, f"--{flag}="))


@pytest.mark.parametrize(
    ("parse", "flags"), [(settings.parse, PREPROCESS), (predict_settings.parse, PREDICT)]
)
def test_an_empty_path_does_not_mean_the_working_folder(
    parse: Callable[[Sequence[str]], object], flags: tuple[str, ...]
) -> None:
    with pytest.raises(UserError, match="--images is empty"):
        parse((*flags, "--images="))


@pytest.mark.parametrize(
    ("given", "expected"), [((), False), (("--overwrite",), True), (("--overwrite=true",), True)]
)
def test_a_switch_takes_a_value_or_none(given: tuple[str, ...], expected: bool) -> None:
    assert settings.parse((*PREPROCESS, *given))[0].overwrite is expected
    assert settings.parse((*PREPROCESS, "--overwrite=false"))[0].overwrite is False


def test_another_value_of_a_switch_is_refused() -> None:
    with pytest.raises(UserError, match="'yes' is not true or false"):
        settings.parse((*PREPROCESS, "--overwrite=yes"))
