"""From an archive of JPEGs to a submission, with the commands that users type."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from canopy.demo.layout import check_submission, read_column
from tests.conftest import TRAINED
from trainer import data_info


def test_two_workers_train_on_one_global_batch(trained, records):
    lines = [json.loads(line) for line in (trained.model_dir / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    total = sum(shard.records for shard in data_info.read(str(records)).shards("train"))
    assert steps[-1]["step"] == -(-total // 8)
    assert {"step", "epoch", "loss", "images_per_second", "input_wait_share", "learning_rate"} <= set(
        steps[0]
    )
    assert "2 replicas on 2 workers" in trained.stderr
    assert (
        lines[-1]["validation"]["records"]
        == json.loads((records / "canopy.json").read_text())["splits"]["validation"]["records"]
    )


def test_training_leaves_what_the_design_promises(trained):
    found = {path.name for path in trained.model_dir.iterdir()}
    assert found == {"checkpoints", "export", "logs", "metrics.jsonl", "run.json"}
    assert {path.name for path in trained.export.iterdir()} >= {
        "saved_model.pb",
        "model.json",
        "model.tflite",
    }
    assert "F2" in trained.stdout


def test_the_test_images_become_a_submission(trained, archive, command, tmp_path):
    sample = archive / "sample_submission_v2.csv"
    done = command(
        "beam_jobs.predict",
        *("--model", trained.export, "--images", archive / "test-jpg"),
        *("--output", tmp_path / "submission.csv", "--sample_submission", sample),
        *("--scores", tmp_path / "scores.parquet"),
    )
    assert done.returncode == 0, done.stderr
    tags = json.loads((trained.export / "model.json").read_text())["classes"]
    names = read_column(sample, "image_name")
    assert check_submission(tmp_path / "submission.csv", names, tags) == 12
    assert {path.name for path in tmp_path.iterdir()} == {"submission.csv", "scores.parquet"}

    # The same images, asked of the SavedModel as the archive's own bytes.
    table = pd.read_parquet(tmp_path / "scores.parquet").set_index("image_name")
    files = [(archive / "test-jpg" / f"{name}.jpg").read_bytes() for name in names]
    served = tf.saved_model.load(str(trained.export)).signatures["serving_default"]
    scores = served(image_bytes=tf.constant(files))["scores"].numpy()
    np.testing.assert_allclose(table.loc[names, tags].to_numpy(), scores, atol=5e-3)


def test_run_again_a_finished_run_takes_no_step_and_exports_the_same(trained, records, command):
    before = json.loads((trained.export / "model.json").read_text())
    flags = ("--data", records, "--model_dir", trained.model_dir, *TRAINED)
    done = command("trainer.launch", "--local_workers", 1, "--", *flags)
    assert done.returncode == 0, done.stderr
    assert "the run is complete already" in done.stdout
    after = json.loads((trained.export / "model.json").read_text())
    assert after["metrics"]["f2"] == before["metrics"]["f2"]
    assert after["metrics"]["loss"] == pytest.approx(before["metrics"]["loss"], abs=1e-5)


@pytest.mark.parametrize(
    ("module", "flags"),
    [
        ("trainer.task", ("--model_dir", "model")),
        ("trainer.evaluate", ("--model", "model", "--output", "out")),
    ],
)
def test_a_partial_data_folder_is_refused_by_every_later_command(module, flags, records, command, tmp_path):
    partial = tmp_path / "partial"
    shutil.copytree(records, partial)
    (partial / "dataset_info.json").unlink()
    done = command(module, "--data", partial, *flags)
    assert done.returncode == 2
    assert "dataset_info.json" in done.stderr
    assert "Traceback" not in done.stderr
