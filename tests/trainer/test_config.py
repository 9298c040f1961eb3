"""Flags to settings: every field is a flag, and what cannot be used is one sentence."""

import dataclasses

import pytest

from canopy.cli import UserError
from tests.conftest import ROOT
from trainer import config
from trainer.config import Config

NEEDED = ["--data", "records", "--model_dir", "model"]


def test_every_field_is_a_flag_with_its_default():
    parsed = config.parse(NEEDED)
    assert parsed == Config(data="records", model_dir="model")


def test_help_explains_every_field(capsys):
    with pytest.raises(SystemExit) as end:
        config.parse(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for field in dataclasses.fields(Config):
        assert f"--{field.name}" in text


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--batch_size", "0"], "--batch_size"),
        (["--epochs", "-1"], "--epochs"),
        (["--image_size", "31"], "--image_size"),
        (["--backbone", "resnet"], "--backbone"),
        (["--backbone", "hub:"], "--backbone"),
        (["--bn_momentum", "1"], "--bn_momentum"),
        (["--weight_decay", "-1"], "--weight_decay"),
        (["--mixup", "-0.1"], "--mixup"),
        (["--learning_rate", "nan"], "--learning_rate"),
        (["--dropout", "1"], "--dropout"),
        (["--fine_tune_from_epoch", "-2"], "--fine_tune_from_epoch"),
        (["--model_dir", ""], "--model_dir is empty"),
        (["--data", ""], "--data is empty"),
        (["--batch_size", str(2**31)], "--batch_size"),
        (["--learning_rate", "1e39"], "--learning_rate"),
        (["--weight_decay", "inf"], "--weight_decay"),
        (["--seed", "-1"], "--seed"),
        (["--seed", str(2**31)], "--seed"),
        (["--early_epochs", "6"], "--early_epochs"),
        (["--early_epochs", "-1"], "--early_epochs"),
        (["--early_epochs", "1", "--early_image_size", "31"], "--early_image_size"),
        (["--early_epochs", "1", "--early_image_size", str(2**31)], "--early_image_size"),
        (["--early_epochs", "1", "--backbone", "hub:x"], "--early_epochs"),
        (["--communication", "nccl", "--exchange", "bfloat16"], "--exchange"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(flags, named):
    with pytest.raises(UserError, match=named):
        config.parse([*NEEDED, *flags])


@pytest.mark.parametrize(
    "flags",
    [
        ["--image_size", "32"],
        ["--early_epochs", "5", "--epochs", "6", "--early_image_size", "32"],
        ["--early_image_size", "16"],
        ["--fine_tune_from_epoch", "-1"],
        ["--seed", str(2**31 - 1)],
        ["--epochs", "1", "--batch_size", "1", "--checkpoint_steps", "1", "--log_steps", "1"],
        ["--weight_decay", "0", "--warmup_share", "0", "--bn_momentum", "0"],
        ["--weight_decay", "1", "--mixup", "1"],
        ["--learning_rate", "1e30"],  # a loss that it makes infinite is told with its step
        ["--communication", "nccl"],
    ],
)
def test_the_last_value_within_its_limits_can_be_used(flags):
    assert config.parse([*NEEDED, *flags])


@pytest.mark.parametrize(
    ("flags", "takes"), [([], True), (["--backbone", "hub:x"], False), (["--init_from", "export"], False)]
)
def test_weights_are_for_a_network_that_brings_none_of_its_own(flags, takes):
    assert config.parse([*NEEDED, *flags]).takes_weights == takes


def test_early_epochs_take_smaller_images():
    flags = ["--early_epochs", "2", "--early_image_size", "40", "--image_size", "64"]
    settings = config.parse([*NEEDED, *flags])
    assert [settings.size_in(epoch) for epoch in range(4)] == [40, 40, 64, 64]


def test_the_global_batch_is_shared_equally():
    assert config.check_batch(64, 4) == 16


@pytest.mark.parametrize(
    ("batch", "replicas", "offered"),
    [(10, 4, "8 or 12, or 2 replicas$"), (3, 4, "4, or 3 replicas$"), (7, 3, "6 or 9, or 1 replica$")],
)
def test_a_batch_that_cannot_be_shared_is_refused_with_one_that_can_and_the_replicas_that_can_share_it(
    batch, replicas, offered
):
    with pytest.raises(UserError, match=offered):
        config.check_batch(batch, replicas)


def test_only_settings_that_change_the_result_stand_in_the_way_of_resuming():
    earlier = dataclasses.asdict(config.parse(NEEDED))
    same = config.parse(["--data", "elsewhere", "--model_dir", "model", "--log_steps", "1"])
    assert config.differences(same, earlier) == []
    other = config.parse([*NEEDED, "--learning_rate", "0.5"])
    assert config.differences(other, earlier) == ["--learning_rate: was 0.001, is 0.5"]


@pytest.mark.parametrize(
    ("flag", "prefix"), [("weights", ""), ("init_from", ""), ("backbone", "hub:")], ids=str
)
def test_a_resumed_run_may_spell_the_path_of_a_file_otherwise(tmp_path, monkeypatch, flag, prefix):
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    earlier = dataclasses.asdict(config.parse([*NEEDED, f"--{flag}={prefix}{tmp_path}/start.h5"]))
    for path, differ in (("../start.h5", 0), ("start.h5", 1), ("https://a/start.h5", 1)):
        now = config.parse([*NEEDED, f"--{flag}={prefix}{path}"])
        assert len(config.differences(now, earlier)) == differ


@pytest.mark.parametrize("field", dataclasses.fields(Config), ids=lambda field: field.name)
def test_a_run_is_resumed_with_what_it_learns_from_unchanged(field):
    settings = config.parse(NEEDED)
    now = getattr(settings, field.name)
    other = not now if isinstance(now, bool) else f"{now}2" if isinstance(now, str) else now + 1
    earlier = dataclasses.asdict(settings)
    changed = Config(**(earlier | {field.name: other}))
    found = config.differences(changed, earlier)
    may_change = (
        *("data", "model_dir", "restart", "checkpoint_steps", "log_steps", "log_format", "profile"),
        *("require_gpu", "communication"),
    )
    assert found == ([] if field.name in may_change else [f"--{field.name}: was {now!r}, is {other!r}"])


def test_a_run_from_before_there_was_a_setting_is_resumed():
    settings = config.parse(NEEDED)
    earlier = dataclasses.asdict(settings)
    del earlier["exchange"]
    assert config.differences(settings, earlier) == []


def test_no_switch_is_on_that_nobody_turned_on():
    settings = dataclasses.asdict(config.parse(NEEDED))
    assert [name for name, value in settings.items() if value is True] == []


@pytest.mark.parametrize("recipe", ["planet32", "planet256"])
def test_the_recipes_flags_are_understood(recipe):
    given = (ROOT / "benchmarks" / f"{recipe}.flags").read_text().split()
    settings = config.parse([*NEEDED, *given])
    assert f"--epochs {settings.epochs}" in " ".join(given)


@pytest.mark.parametrize(("given", "meant"), [("gs://b/run/", "gs://b/run"), ("run//", "run"), ("/", "/")])
def test_a_slash_behind_a_folder_makes_no_other_folder(given, meant):
    found = config.parse(["--data", given, "--model_dir", given, "--init_from", given])
    assert (found.data, found.model_dir, found.init_from) == (meant, meant, meant)


@pytest.mark.parametrize("flag", ["--data", "--model_dir", "--init_from"])
@pytest.mark.parametrize("nothing", ["gs://", "gs:///"])
def test_an_address_of_nothing_is_no_folder_of_this_machine(flag, nothing):
    with pytest.raises(UserError, match=f"{nothing} names no bucket"):
        config.parse([*NEEDED, flag, nothing])
