"""What a manifest gives: it fills in values, and can leave no flag out."""

from collections.abc import Callable, Sequence
from decimal import Decimal

import pytest

from beam_jobs import predict_settings, settings
from beam_jobs.images import DEFAULT_MAX_PIXELS, Encoding
from canopy.cli import UserError

PREPROCESS = ("--images=chips", "--labels=tags.csv", "--output=records")
PREDICT = ("--model=export", "--images=chips", "--output=submission.csv")


def test_what_is_not_given_is_as_documented() -> None:
    job, _ = settings.parse(PREPROCESS)
    assert job.splits == (("train", 0.9), ("validation", 0.1))
    assert (job.dataset, job.seed, job.vocabulary) == ("planet", 0, None)
    assert (job.num_shards, job.shard_mb, job.max_bad_fraction, job.overwrite) == (None, 128, 0.01, False)
    assert job.encoding == Encoding("jpeg", 95, "420", DEFAULT_MAX_PIXELS)
    prediction, _ = predict_settings.parse(PREDICT)
    assert (prediction.tta, prediction.engine, prediction.max_pixels) == (1, "auto", DEFAULT_MAX_PIXELS)
    assert prediction.max_bad_fraction == prediction.max_missing_fraction == 0.01
    assert (prediction.max_extra_fraction, prediction.scores) == (1, None)


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


def test_the_archives_own_bytes_cannot_be_shrunk() -> None:
    assert settings.parse((*PREPROCESS, "--max_side=512"))[0].encoding.max_side == 512
    assert settings.parse((*PREPROCESS, "--max_side=0", "--image_format=keep"))[0].encoding.max_side == 0
    with pytest.raises(UserError, match=r"--max_side shrinks pictures, and --image_format keep"):
        settings.parse((*PREPROCESS, "--max_side=512", "--image_format=keep"))
    with pytest.raises(UserError, match="-1 is below 0"):
        settings.parse((*PREPROCESS, "--max_side=-1"))


@pytest.mark.parametrize("flag", ["vocabulary", "labels", "output"])
def test_an_empty_value_is_still_a_mistake(flag: str) -> None:
    with pytest.raises(UserError, match=f"--{flag} is empty"):
        settings.parse((*PREPROCESS, f"--{flag}="))


@pytest.mark.parametrize("flag", ["model", "output", "sample_submission", "scores"])
def test_an_empty_value_is_no_file_that_prediction_does_without(flag: str) -> None:
    with pytest.raises(UserError, match=f"--{flag} is empty"):
        predict_settings.parse((*PREDICT, f"--{flag}="))


def test_a_submission_may_stand_in_a_bucket_itself() -> None:
    assert predict_settings.parse((*PREDICT, "--output=gs://here/out.csv"))[0].output == "gs://here/out.csv"


@pytest.mark.parametrize(
    ("parse", "flags"), [(settings.parse, PREPROCESS), (predict_settings.parse, PREDICT)]
)
def test_an_empty_path_does_not_mean_the_working_folder(
    parse: Callable[[Sequence[str]], object], flags: tuple[str, ...]
) -> None:
    with pytest.raises(UserError, match="--images is empty"):
        parse((*flags, "--images="))


@pytest.mark.parametrize(
    ("parse", "flags"),
    [
        (settings.parse, (*PREPROCESS, "--output=gs://")),
        (settings.parse, (*PREPROCESS, "--images=gs:///")),
        (predict_settings.parse, (*PREDICT, "--model=gs://")),
    ],
)
def test_an_address_of_nothing_is_no_folder_of_this_machine(
    parse: Callable[[Sequence[str]], object], flags: tuple[str, ...]
) -> None:
    with pytest.raises(UserError, match="names no bucket"):
        parse(flags)


@pytest.mark.parametrize(
    ("given", "expected"), [((), False), (("--overwrite",), True), (("--overwrite=true",), True)]
)
def test_a_switch_takes_a_value_or_none(given: tuple[str, ...], expected: bool) -> None:
    assert settings.parse((*PREPROCESS, *given))[0].overwrite is expected
    assert settings.parse((*PREPROCESS, "--overwrite=false"))[0].overwrite is False


def test_another_value_of_a_switch_is_refused() -> None:
    with pytest.raises(UserError, match="'yes' is not true or false"):
        settings.parse((*PREPROCESS, "--overwrite=yes"))


@pytest.mark.parametrize(
    ("splits", "main"),
    [("train=0.9,validation=0.1", "train"), ("validation=0.1,train=0.9", "train"), ("a=0.5,b=0.5", "a")],
)
def test_the_main_split_is_train_wherever_it_stands_else_the_first(splits: str, main: str) -> None:
    assert settings.parse((*PREPROCESS, f"--splits={splits}"))[0].main_split == main


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ("train=0.4,train=1", "the split train comes twice"),
        ("train=1,test=0", "0 is not above 0"),
        ("train=inf", "inf is not above 0"),
        ("train=nan", "nan is not above 0"),
        ("train=0.9,all=0.1", "keeps the name 'all'"),
        ("train=0.6,test=0.6", "add up to 1.2, not to 1"),
        ("train=1,", "'' is not like train=0.9"),
        ("a/b=1", "'a/b=1' is not like train=0.9"),
    ],
)
def test_splits_that_are_none_are_refused(splits: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        settings.parse((*PREPROCESS, f"--splits={splits}"))


def test_the_first_and_the_last_of_a_range_can_be_used() -> None:
    for flag in ("--jpeg_quality=1", "--jpeg_quality=100", "--num_shards=1", "--num_shards=99999"):
        assert settings.parse((*PREPROCESS, flag))
    for value in (0, 1):
        assert settings.parse((*PREPROCESS, f"--max_bad_fraction={value}"))
    for flag in ("--max_bad_fraction", "--max_missing_fraction", "--max_extra_fraction"):
        for value in (0, 1):
            assert predict_settings.parse((*PREDICT, f"{flag}={value}"))
        with pytest.raises(UserError, match=r"1\.5 is not from 0 to 1"):
            predict_settings.parse((*PREDICT, f"{flag}=1.5"))
    for flag, said in (
        ("--num_shards=100000", "100000 is not from 1 to 99999"),
        ("--num_shards=some", "invalid int value: 'some'"),
        ("--max_pixels=0", "0 is not at least 1"),
    ):
        with pytest.raises(UserError, match=said):
            settings.parse((*PREPROCESS, flag))


def test_what_no_job_does_without_is_named() -> None:
    with pytest.raises(UserError, match="arguments are required: --images, --labels, --output"):
        settings.parse(())
