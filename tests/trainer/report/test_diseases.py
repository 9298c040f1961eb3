"""Diseases of data and models, caused on purpose: the report's verdict names each."""

import io
import json

import pytest
from PIL import Image, ImageFilter

from canopy import cli
from canopy.sample.encode import planet_jpeg
from tests.conftest import SMALLEST
from tests.trainer.report.making import checks_in, jpeg, rewritten
from trainer import evaluate


def checks_of(model, data, output):
    """Evaluates, and returns the checks by name."""
    flags = ["--model", str(model), "--data", str(data), "--output", str(output)]
    assert evaluate.main(flags) == cli.EXIT_OK
    page, found = (output / "report.html").read_text(), checks_in(output)
    for check in found.values():
        assert check["title"] in page
    return found


def as_planet(features):
    """Puts the picture in as the archive has it: TensorFlow decodes such a file to black."""
    import numpy as np

    image = features["image/encoded"].bytes_list.value
    image[0] = planet_jpeg(np.asarray(Image.open(io.BytesIO(image[0])).convert("RGB")))


def test_black_pictures_make_scores_constant_and_both_are_named(trained, records, tmp_path):
    def blacken(split, row, features):
        features["image/encoded"].bytes_list.value[0] = jpeg(value=0)

    data = rewritten(records, tmp_path / "data", blacken)
    found = checks_of(trained.export, data, tmp_path / "report")
    assert found["dead_pictures_validation"]["verdict"] == "fail"
    assert found["dead_pictures_train"]["verdict"] == "fail"
    assert found["constant_answers"]["verdict"] == "fail"
    assert found["constant_scores"]["verdict"] == "fail"
    assert found["beats_constant"]["verdict"] == "fail"
    assert "Adobe" not in found["dead_pictures_validation"]["sentence"]


def test_pictures_that_only_training_sees_black_are_told_from_black_ones(trained, records, tmp_path):
    data = rewritten(records, tmp_path / "data", lambda split, row, features: as_planet(features))
    found = checks_of(trained.export, data, tmp_path / "report")
    assert found["dead_pictures_validation"]["verdict"] == "fail"
    assert "no Adobe marker" in found["dead_pictures_validation"]["sentence"]


def test_a_validation_split_that_shares_pictures_with_training_is_named(trained, records, tmp_path):
    seen = []

    def share(split, row, features):
        if split == "train":
            seen.append(features["image/encoded"].bytes_list.value[0])
        elif row % 2 == 0:
            features["image/encoded"].bytes_list.value[0] = seen[row]

    data = rewritten(records, tmp_path / "data", share)
    found = checks_of(trained.export, data, tmp_path / "report")
    assert found["duplicates"]["verdict"] == "fail"
    assert "the same file as a training picture" in found["duplicates"]["sentence"]


def test_a_blurred_validation_split_is_named(trained, records, tmp_path):
    def blur(split, row, features):
        image = features["image/encoded"].bytes_list.value
        if split == "validation":
            out = io.BytesIO()
            blurred = Image.open(io.BytesIO(image[0])).filter(ImageFilter.GaussianBlur(5))
            blurred.save(out, "JPEG", quality=95)
            image[0] = out.getvalue()

    data = rewritten(records, tmp_path / "data", blur)
    found = checks_of(trained.export, data, tmp_path / "report")
    assert found["pixels_differ"]["verdict"] == "fail"
    assert "sharpness" in found["pixels_differ"]["sentence"]


def test_an_archive_with_pictures_of_one_value_is_named(trained, archive, command, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for i, path in enumerate(sorted((archive / "train-jpg").iterdir())):
        (images / path.name).write_bytes(jpeg(value=90) if i % 4 == 0 else path.read_bytes())
    data = tmp_path / "data"
    vocabulary = tmp_path / "labels.txt"
    classes = json.loads((trained.export / "model.json").read_text())["classes"]
    vocabulary.write_text("".join(f"{tag}\n" for tag in classes))
    done = command(
        "beam_jobs.preprocess",
        *("--images", images, "--labels", archive / "train_v2.csv", "--output", data),
        *("--splits", "train=0.7,validation=0.3", "--vocabulary", vocabulary, "--max_bad_fraction", 0.1),
    )
    assert done.returncode == 0, done.stderr
    found = checks_of(trained.export, data, tmp_path / "report")
    assert found["suspicious_pictures"]["verdict"] == "fail"
    assert found["known_data"]["verdict"] == "look"
    assert "fail" in {found[f"dead_pictures_{split}"]["verdict"] for split in ("train", "validation")}


@pytest.mark.slow
def test_a_model_trained_on_what_tensorflow_sees_black_always_says_the_same(records, command, tmp_path):
    data = rewritten(records, tmp_path / "data", lambda split, row, features: as_planet(features))
    model_dir = tmp_path / "model"
    done = command(
        "trainer.launch",
        *("--local_workers", 1, "--", "--data", data, "--model_dir", model_dir, "--epochs", 2, *SMALLEST),
    )
    assert done.returncode == 0, done.stderr
    found = checks_of(model_dir / "export", data, tmp_path / "report")
    assert found["beats_constant"]["verdict"] == "fail"
    assert "no Adobe marker" in found["dead_pictures_validation"]["sentence"]
    assert "no picture" not in (tmp_path / "report/report.html").read_text()
