"""The report: the export's own scores, nothing from the network, names and tags escaped."""

import csv
import json
import shutil

import pytest

from canopy import cli
from trainer import evaluate
from trainer.config import Config


@pytest.fixture(scope="module")
def report(trained, records, tmp_path_factory):
    output = tmp_path_factory.mktemp("report")
    flags = ["--model", str(trained.export), "--data", str(records), "--output", str(output)]
    assert evaluate.main(flags) == cli.EXIT_OK
    return output


def test_metrics_are_those_of_training(report, trained):
    found = json.loads((report / "metrics.json").read_text())
    at_the_end = json.loads((trained.export / "model.json").read_text())["metrics"]
    for name in ("records", "f2", "f2_at_0.2", "f2_constant", "loss"):
        assert found[name] == pytest.approx(at_the_end[name], abs=1e-4), name
    assert found["constant_tags"] == at_the_end["constant_tags"]


def test_every_record_has_its_row(report, records):
    with (report / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = json.loads((records / "canopy.json").read_text())["splits"]["validation"]["records"]
    assert len({row["image_name"] for row in rows}) == len(rows) == expected
    assert all(row["predicted"] for row in rows)


def test_the_page_shows_scores_pictures_and_settings_without_a_network(report):
    page = (report / "report.html").read_text()
    assert "F2 of constant tags" in page
    assert page.count("data:image/jpeg;base64,") >= 12
    assert "http://" not in page
    assert "https://" not in page
    for name in Config.__dataclass_fields__:
        assert name in page


def test_names_and_tags_are_escaped(trained, records):
    import numpy as np

    from trainer import data_info

    info = data_info.read(str(records))
    described = json.loads((trained.export / "model.json").read_text())
    labels = np.zeros((1, len(info.vocabulary)), np.int64)
    labels[0, 0] = 1
    found = evaluate.Scored(["<script>alert(1)</script>"], [b"\xff\xd8"], labels.astype(np.float32), labels)
    document = {"split": "validation", "records": 1, **described["metrics"]}
    page = evaluate._page(document, described, info, found)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("change", "named"),
    [({"--model": "nowhere"}, "model.json"), ({"--data": "nowhere"}, "nowhere"), ({"--split": "x"}, "'x'")],
)
def test_a_mistake_is_one_sentence(change, named, trained, records, tmp_path, capfd):
    flags = {"--model": trained.export, "--data": records, "--output": tmp_path / "report"} | change
    words = [str(word) for pair in flags.items() for word in pair]
    assert evaluate.main(words) == cli.EXIT_USER
    told = capfd.readouterr().err
    assert named in told.splitlines()[-1]
    assert not (tmp_path / "report").exists()


def test_a_model_of_a_newer_version_is_refused(trained, records, tmp_path, capfd):
    copy = tmp_path / "export"
    shutil.copytree(trained.export, copy)
    found = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps({**found, "format_version": 9}))
    flags = ["--model", str(copy), "--data", str(records), "--output", str(tmp_path / "report")]
    assert evaluate.main(flags) == cli.EXIT_USER
    assert "upgrade" in capfd.readouterr().err
