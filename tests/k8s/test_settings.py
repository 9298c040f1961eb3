"""The ConfigMaps: every setting that a user may change, with the code's defaults, as the code reads them."""

import dataclasses
import re

import pytest

from beam_jobs import predict_settings
from beam_jobs import settings as preprocess
from tests.k8s.manifests import STAGES, command_of, file_of, objects, of_kind, quantity, the
from trainer import config, evaluate
from trainer.tuning import search, settings


def command(stage):
    found = objects(file_of(stage))
    (workload,) = of_kind(found, "Job", "Deployment")
    return command_of(found, workload)


def flags(stage):
    """The words behind `python -m MODULE`."""
    return command(stage).words[3:]


def behind_dashes(words):
    return words[words.index("--") + 1 :]


@pytest.mark.parametrize("stage", STAGES)
def test_every_setting_is_used_and_every_variable_is_a_setting(stage):
    found = objects(file_of(stage))
    (workload,) = of_kind(found, "Job", "Deployment")
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    used = re.findall(r"\$\(([^)]*)\)", " ".join(container["args"]))
    (settings,) = of_kind(found, "ConfigMap")
    assert sorted(used) == sorted(settings["data"])
    assert all(isinstance(value, str) for value in settings["data"].values())
    assert "$(" not in " ".join(command(stage).words)


@pytest.mark.parametrize(
    ("stage", "module"),
    [
        ("preprocess", "beam_jobs.preprocess"),
        ("train", "trainer.launch"),
        ("predict", "beam_jobs.predict"),
        ("evaluate", "trainer.evaluate"),
        ("tune", "trainer.tune"),
        ("tensorboard", "tensorboard.main"),
    ],
)
def test_every_stage_starts_its_own_command(stage, module):
    assert command(stage).words[:3] == ["python", "-m", module]


def test_training_has_a_setting_for_every_flag_with_the_codes_default():
    settings = the(objects(file_of("train")), "ConfigMap", "canopy-train")["data"]
    fields = {field.name: field.default for field in dataclasses.fields(config.Config)}
    assert fields.keys() <= {name.lower() for name in settings}
    parsed = dataclasses.asdict(config.parse(behind_dashes(flags("train"))))
    other = {name for name, value in parsed.items() if value != fields[name]}
    assert other - {"weights"} == {"data", "model_dir", "require_gpu"}
    assert parsed["weights"] == "auto", "most clusters cannot fetch ImageNet's"
    assert (parsed["data"], parsed["model_dir"]) == ("/data/tfrecords", "/data/model")
    assert parsed["require_gpu"] is True


def test_preprocessing_has_a_setting_for_every_flag_with_the_codes_default():
    given, rest = preprocess.parse(flags("preprocess"))
    assert not rest, "Beam's options are left to Canopy, which fits them to the pod"
    places = ("--images=/data/archive/train-jpg", "--labels=/data/archive/train_v2.csv")
    assert given == preprocess.parse((*places, "--output=/data/tfrecords"))[0]
    known = {flag for action in preprocess.make_parser()._actions for flag in action.option_strings}
    # The size of a shard decides their number.
    assert {word.split("=")[0] for word in flags("preprocess")} == known - {"-h", "--help", "--num_shards"}


def test_a_shard_of_every_process_fits_into_preprocessings_temporary_volume_on_its_way_to_a_store():
    found = objects(file_of("preprocess"))
    pod = of_kind(found, "Job")[0]["spec"]["template"]["spec"]
    resources = pod["containers"][0]["resources"]
    shard = float(the(found, "ConfigMap", "canopy-preprocess")["data"]["SHARD_MB"]) * 1e6
    held = int(resources["limits"]["cpu"]) * shard

    (volume,) = (each["emptyDir"] for each in pod["volumes"] if each["name"] == "tmp")
    assert 2 * held < quantity(volume["sizeLimit"]) < quantity(resources["limits"]["ephemeral-storage"])
    assert held < quantity(resources["requests"]["ephemeral-storage"])


def test_prediction_has_the_codes_defaults_but_for_rows_whose_images_kaggle_ships_apart():
    given, rest = predict_settings.parse(flags("predict"))
    assert not rest
    default, _ = predict_settings.parse(
        (
            "--model=/data/model/export",
            "--images=/data/archive/test-jpg",
            "--output=/data/submission.csv",
            "--sample_submission=/data/archive/sample_submission_v2.csv",
        )
    )
    assert given == dataclasses.replace(default, max_missing_fraction=0.4)
    assert len(flags("predict")) == len(dataclasses.fields(predict_settings.Settings))


def test_the_evaluation_has_a_setting_for_every_flag_with_the_codes_default(tmp_path):
    def parsed(words):  # that the output can be written to is checked there and then
        return vars(evaluate._flags([word.replace("/data/", f"{tmp_path}/") for word in words]))

    given = parsed(flags("evaluate"))
    assert given == parsed(("--model=/data/model/export", "--data=/data/tfrecords", "--output=/data/report"))
    settings = the(objects(file_of("evaluate")), "ConfigMap", "canopy-evaluate")["data"]
    assert {name.lower() for name in settings} == given.keys()


def test_the_search_has_the_codes_defaults():
    given = settings.parse(flags("tune"))
    default = settings.parse(("--data=/data/tfrecords", "--study=/data/tune/study.log"))
    assert dataclasses.replace(given, space=(), fixed=()) == default
    assert search.chosen(given.space, search.names(given.fixed)).texts == search.chosen([], []).texts
    fixed = config.parse((*given.fixed, "--data=x", "--model_dir=y"))
    plain = config.parse(("--data=x", "--model_dir=y", "--require_gpu=true", "--weights=auto"))
    assert fixed == plain
    assert {text.split("=")[0] for text in given.space}.isdisjoint(
        word.split("=")[0].removeprefix("--") for word in given.fixed
    )


def test_stages_hand_on_what_the_next_one_takes():
    def settings(name):
        return the(objects(file_of(name)), "ConfigMap", f"canopy-{name}")["data"]

    for reader in ("train", "evaluate", "tune"):
        assert settings(reader)["DATA"] == settings("preprocess")["OUTPUT"]
    for reader in ("predict", "evaluate"):
        assert settings(reader)["MODEL"] == settings("train")["MODEL_DIR"] + "/export"
    assert f"{settings('evaluate')['SPLIT']}=" in settings("preprocess")["SPLITS"]
    assert settings("tensorboard")["LOGDIR"] == settings("train")["MODEL_DIR"] + "/logs"
