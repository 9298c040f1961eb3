"""Evaluation: the export's own scores, a report, figures for programs, mistakes in one sentence."""

import csv
import dataclasses
import io
import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from canopy import cli, model_info
from tests.trainer.report.making import checks_in, rewritten
from trainer import data_info, evaluate
from trainer.config import Config
from trainer.report import page, split
from trainer.report.looks import Looks


def words(trained, records, output, **change):
    flags = {"--model": trained.export, "--data": records, "--output": output}
    flags |= {f"--{name}": value for name, value in change.items()}
    return [str(word) for pair in flags.items() for word in pair]


def test_metrics_are_those_of_training(report, trained):
    found = json.loads((report / "metrics.json").read_text())
    at_the_end = json.loads((trained.export / "model.json").read_text())["metrics"]
    for name in ("records", "f2", "f2_at_0.2", "f2_constant", "loss"):
        assert found[name] == pytest.approx(at_the_end[name], abs=1e-4), name
    assert found["constant_tags"] == at_the_end["constant_tags"]


def test_metrics_carry_the_checks_and_the_calibration(report):
    found, checks = json.loads((report / "metrics.json").read_text()), checks_in(report)
    assert set(checks) == {
        *("beats_constant", "dead_pictures_validation", "dead_pictures_train", "suspicious_pictures"),
        *("constant_answers", "constant_scores", "never_answered", "thresholds_at_edge", "known_data"),
        *("duplicates", "near_duplicates", "tags_differ", "pixels_differ", "absent_tags", "calibrated"),
    }
    assert all(check["verdict"] in {"pass", "look", "fail"} for check in checks.values())
    assert checks["dead_pictures_train"]["verdict"] == "pass"
    assert checks["duplicates"]["verdict"] == "pass"
    assert checks["known_data"]["verdict"] == "pass"
    assert sum(found["calibration"]["counts"]) == found["records"] * len(found["tags"])


def test_metrics_of_bins_that_hold_no_score_are_json(report):
    text = (report / "metrics.json").read_text()
    found = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))["calibration"]
    empty = [i for i, count in enumerate(found["counts"]) if not count]
    assert empty
    assert all(found["scores"][i] is found["shares"][i] is None for i in empty)


def test_below_each_picture_stands_its_own_f2(report):
    with (report / "predictions.csv").open(newline="") as file:
        rows = {
            row["image_name"]: (set(row["tags"].split()), set(row["predicted"].split()))
            for row in csv.DictReader(file)
        }
    shown = re.findall(
        r"<figcaption><b><bdi>(\w+)</bdi></b> F2 ([\d.]+)", (report / "report.html").read_text()
    )
    assert shown
    for name, figure in shown:
        true, given = rows[name]
        assert float(figure) == pytest.approx(5 * len(true & given) / (4 * len(true) + len(given)), abs=0.006)


def test_every_record_has_its_row(report, records):
    with (report / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = json.loads((records / "canopy.json").read_text())["splits"]["validation"]["records"]
    assert len({row["image_name"] for row in rows}) == len(rows) == expected
    assert all(row["predicted"] for row in rows)


def test_any_name_is_read_again_as_it_was():
    names = ["plain", "a, b", 'odd "name"', "line\nbreak", "carriage\rreturn", "both\r\n"]
    model = model_info.ModelInfo("", ("clear", "water"), (0.5, 0.5), (), 32, {})
    looks = dataclasses.replace(Looks.empty(), names=names)
    labels = np.tile([[True, False]], (len(names), 1))
    text = evaluate._predictions(model, split.Scored(looks, labels.astype(np.float32), labels))
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert rows == [{"image_name": name, "tags": "clear", "predicted": "clear"} for name in names]


def test_the_page_shows_scores_pictures_curves_and_settings_without_a_network(report):
    text = (report / "report.html").read_text()
    assert "F2 of the constant answer" in text
    assert text.count("data:image/jpeg;base64,") >= 12
    assert "From metrics.jsonl beside the export: 1 epoch" in text
    assert "http://" not in text
    assert "https://" not in text
    for name in Config.__dataclass_fields__:
        assert name in text


def test_a_lone_export_is_evaluated_and_its_curves_are_said_to_be_missing(trained, records, tmp_path, capfd):
    shutil.copytree(trained.export, tmp_path / "[alone]")
    flags = words(trained, records, tmp_path / "report", model=tmp_path / "[alone]", train_records=0)
    assert evaluate.main(flags) == cli.EXIT_OK
    assert "There is no metrics.jsonl beside the export" in (tmp_path / "report/report.html").read_text()
    found = checks_in(tmp_path / "report")
    assert {check["verdict"] for name, check in found.items() if "duplicates" in name} == {"look"}
    assert "look: No training picture was looked at" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("given", "meant"), [("gs://here/export/", "gs://here/export"), ("export/", "export"), ("/", "/")]
)
def test_a_slash_behind_the_model_makes_no_other_folder(given, meant):
    assert evaluate._flags(["--model", given, "--data", "d", "--output", "o"]).model == meant


def test_the_training_split_is_said_to_flatter(trained, records, tmp_path):
    assert evaluate.main(words(trained, records, tmp_path, split="train")) == cli.EXIT_OK
    found = checks_in(tmp_path)
    assert "flatter" in found["known_data"]["sentence"]
    assert "duplicates" not in found


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": "nowhere"}, "model.json"),
        ({"data": "nowhere"}, "nowhere"),
        ({"split": "x"}, "'x'"),
        ({"model": "\udcff"}, "--model: is no UTF-8 text"),
        ({"train_records": "-1"}, "--train_records"),
        ({"output": "/dev/null/report"}, "--output /dev/null/report: /dev/null is not a folder"),
    ],
)
def test_a_mistake_is_one_sentence(change, named, trained, records, tmp_path, capfd):
    flags = words(trained, records, **{"output": tmp_path / "report", **change})
    assert evaluate.main(flags) == cli.EXIT_USER
    told = capfd.readouterr().err
    assert named in told.splitlines()[-1]
    assert "Traceback" not in told
    assert not (tmp_path / "report").exists()


def test_a_canopy_json_that_lacks_what_the_report_tells_is_one_sentence(trained, records, tmp_path, capfd):
    data = shutil.copytree(records, tmp_path / "data")
    facts = json.loads((data / "canopy.json").read_text())
    del facts["images"]
    (data / "canopy.json").write_text(json.dumps(facts))
    assert evaluate.main(words(trained, data, tmp_path / "report")) == cli.EXIT_USER
    told = capfd.readouterr().err
    assert told == f"error: {data}/canopy.json cannot be understood: images is missing\n"
    assert not (tmp_path / "report").exists()


def test_an_address_of_nothing_is_no_folder_of_this_machine(trained, records, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert evaluate.main(words(trained, records, "gs://")) == cli.EXIT_USER
    assert capfd.readouterr().err.splitlines()[-1] == "error: gs:// names no bucket"
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_cannot_be_written_is_one_sentence(trained, records, tmp_path, capfd):
    (tmp_path / "report.html.tmp").mkdir()
    (tmp_path / "metrics.json").write_text("earlier")
    assert evaluate.main(words(trained, records, tmp_path)) == cli.EXIT_USER
    told = capfd.readouterr().err
    assert told.splitlines()[-1].startswith(f"error: --output {tmp_path} cannot be written to (")
    assert "Traceback" not in told
    assert (tmp_path / "metrics.json").read_text() == "earlier"


def altered(trained, folder, **change):
    """A copy of the export with another model.json."""
    shutil.copytree(trained.export, folder)
    found = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**found, **change}))
    return folder


def test_the_models_own_thresholds_count_and_the_summary_says_so(
    trained, records, tmp_path, capfd, monkeypatch
):
    monkeypatch.setattr(page, "render", lambda _: "")
    tags = json.loads((trained.export / "model.json").read_text())["classes"]
    model, output = altered(trained, tmp_path / "export", thresholds=[2.0] * len(tags)), tmp_path / "report"
    assert evaluate.main(words(trained, records, output, model=model, train_records=0)) == cli.EXIT_OK
    found = json.loads((output / "metrics.json").read_text())
    assert found["f2"] < found["f2_at_0.2"]
    first, *_, last = capfd.readouterr().out.splitlines()
    assert first.startswith(f"validation: {found['records']} records, loss {found['loss']:#.4g}")
    assert f"F2 {found['f2']:.4f} ({found['f2_at_0.2']:.4f} at 0.2" in first
    assert last == f"report: {output}/report.html"


def test_a_model_of_a_newer_version_is_refused(trained, records, tmp_path, capfd):
    model = altered(trained, tmp_path / "export", format_version=9)
    assert evaluate.main(words(trained, records, tmp_path / "report", model=model)) == cli.EXIT_USER
    assert "upgrade" in capfd.readouterr().err


def test_a_model_of_other_classes_is_refused_with_what_differs(trained, records, tmp_path, capfd):
    found = json.loads((trained.export / "model.json").read_text())
    classes, metrics = found["classes"], found["metrics"] | {"constant_tags": []}
    model = altered(trained, tmp_path / "other", classes=["dunes", *classes[1:]], metrics=metrics)
    assert evaluate.main(words(trained, records, tmp_path / "report", model=model)) == cli.EXIT_USER
    told = capfd.readouterr().err
    assert "'dunes'" in told
    assert repr(classes[0]) in told
    assert "train it on this data" in told
    model = altered(trained, tmp_path / "turned", classes=classes[::-1])
    assert evaluate.main(words(trained, records, tmp_path / "report", model=model)) == cli.EXIT_USER
    told = capfd.readouterr().err
    assert "the same in another order" in told
    assert "with --vocabulary and the labels.txt" in told


def test_data_that_lack_a_tag_of_the_model_are_told_how_to_get_it(trained, records, tmp_path, capfd):
    found = json.loads((trained.export / "model.json").read_text())
    more = {"classes": [*found["classes"], "dunes"], "thresholds": [*found["thresholds"], 0.2]}
    model = altered(trained, tmp_path / "more", **more)
    assert evaluate.main(words(trained, records, tmp_path / "report", model=model)) == cli.EXIT_USER
    told = capfd.readouterr().err
    assert "1 only in the model, such as 'dunes'" in told
    assert "with --vocabulary and the labels.txt" in told


def test_a_model_with_more_scores_than_tags_is_refused(trained, records, tmp_path, capfd, monkeypatch):
    read, two = data_info.read, ("clear", "haze")
    monkeypatch.setattr(data_info, "read", lambda folder: dataclasses.replace(read(folder), vocabulary=two))
    changes = {"classes": two, "thresholds": [0.2, 0.2], "metrics": {"constant_tags": ["clear"]}}
    model = altered(trained, tmp_path / "export", **changes)
    flags = words(trained, records, tmp_path / "report", model=model, train_records=0)
    assert evaluate.main(flags) == cli.EXIT_USER
    told = capfd.readouterr().err
    assert "scores for 2 tags" in told
    assert "Traceback" not in told


def test_what_a_tag_holds_does_not_act_upon_the_terminal(trained, records, tmp_path, capfd, monkeypatch):
    read, found = data_info.read, json.loads((trained.export / "model.json").read_text())
    classes = ("\x1b[31mred", *found["classes"][1:])
    monkeypatch.setattr(data_info, "read", lambda at: dataclasses.replace(read(at), vocabulary=classes))
    changes = {"classes": classes, "metrics": found["metrics"] | {"constant_tags": []}}
    model = altered(trained, tmp_path / "export", **changes)
    assert evaluate.main(words(trained, records, tmp_path / "report", model=model)) == cli.EXIT_OK
    told = capfd.readouterr().out
    assert r"train lacks \x1b[31mred" in told
    assert "\x1b" not in told


@pytest.mark.parametrize("dataset", [None, {}, {"fingerprint": None}, []])
def test_a_model_that_tells_neither_its_data_set_nor_its_settings_is_evaluated(
    dataset, trained, records, tmp_path
):
    model = altered(trained, tmp_path / "export", dataset=dataset, config=dataset)
    assert evaluate.main(words(trained, records, tmp_path / "report", model=model)) == cli.EXIT_OK
    assert checks_in(tmp_path / "report")["known_data"]["verdict"] == "look"


@pytest.mark.parametrize("good", [b"", b"DisableCopyOnRead"], ids=["gone", "an operation unknown here"])
def test_a_model_that_cannot_be_loaded_is_refused(trained, records, tmp_path, capfd, good):
    model = altered(trained, tmp_path / "export")
    graph = model / "saved_model.pb"
    if good:
        graph.write_bytes(graph.read_bytes().replace(good, good[::-1]))
    else:
        graph.unlink()
    assert evaluate.main(words(trained, records, tmp_path / "report", model=model)) == cli.EXIT_USER
    assert "cannot be loaded" in capfd.readouterr().err


def test_a_store_that_fails_while_the_model_is_loaded_is_worth_another_try(
    trained, records, tmp_path, capfd, monkeypatch
):
    def busy(*_):
        raise tf.errors.UnavailableError(None, None, "busy")

    monkeypatch.setattr(tf.saved_model, "load", busy)
    assert evaluate.main(words(trained, records, tmp_path / "report")) == cli.EXIT_PEER_LOST
    assert "cannot be loaded (busy)" in capfd.readouterr().err


def test_scores_that_are_no_numbers_are_one_sentence(trained, records, tmp_path, capfd):
    model = altered(trained, tmp_path / "export")
    found = tf.saved_model.load(str(model))
    for variable in found.weights:
        variable.assign(tf.fill(variable.shape, np.nan))
    tf.saved_model.save(found, str(model), signatures=dict(found.signatures))
    assert evaluate.main(words(trained, records, tmp_path / "report", model=model)) == cli.EXIT_USER
    told = capfd.readouterr().err
    assert f"error: --model {model} gives scores that are no numbers: train it again" in told
    assert not (tmp_path / "report").exists()


def test_a_disk_that_fails_while_pictures_are_picked_is_worth_another_try(
    trained, records, tmp_path, capfd, monkeypatch
):
    score = split.score

    def fails(*_):
        yield from ()
        raise tf.errors.UnknownError(None, None, "Input/output error")

    def score_and_fail_then(*given):
        found = score(*given)
        monkeypatch.setattr(split, "encoded", fails)
        return found

    monkeypatch.setattr(split, "score", score_and_fail_then)
    flags = words(trained, records, tmp_path / "report", train_records=0)
    assert evaluate.main(flags) == cli.EXIT_PEER_LOST
    assert "a shard cannot be read (Input/output error)" in capfd.readouterr().err


def test_a_record_that_cannot_be_decoded_is_one_sentence(trained, records, tmp_path, capfd):
    def spoil(split, row, features):
        if split == "validation" and row == 0:
            features["image/encoded"].bytes_list.value[0] = b"no picture"

    data = rewritten(records, tmp_path / "data", spoil)
    assert evaluate.main(words(trained, data, tmp_path / "report")) == cli.EXIT_USER
    told = capfd.readouterr().err
    assert "record 0" in told
    assert "validation.tfrecord" in told
    assert not (tmp_path / "report").exists()


def test_a_cut_shard_is_one_sentence(trained, records, tmp_path, capfd):
    data = rewritten(records, tmp_path / "data", lambda *_: None)
    shard = sorted(data.glob("*validation.tfrecord*"))[0]
    shard.write_bytes(shard.read_bytes()[:-10])
    assert evaluate.main(words(trained, data, tmp_path / "report")) == cli.EXIT_USER
    assert shard.name in capfd.readouterr().err


def test_a_damaged_training_shard_is_told_before_the_split_is_scored(
    trained, records, tmp_path, capfd, monkeypatch
):
    data = rewritten(records, tmp_path / "data", lambda *_: None)
    shard = sorted(data.glob("*train.tfrecord*"))[0]
    shard.write_bytes(shard.read_bytes()[:-10])
    monkeypatch.setattr(split, "score", None)
    assert evaluate.main(words(trained, data, tmp_path / "report")) == cli.EXIT_USER
    assert shard.name in capfd.readouterr().err


@pytest.mark.parametrize(
    ("file", "key", "said"),
    [
        (
            "data/canopy.json",
            "fingerprint",
            "--data {} was preprocessed again meanwhile: evaluate once more\n",
        ),
        (
            "model/model.json",
            "data_fingerprint",
            "--model {} was exported again meanwhile: evaluate once more\n",
        ),
    ],
)
def test_records_or_a_model_made_anew_while_they_are_evaluated_are_worth_another_try(
    file, key, said, trained, records, tmp_path, capfd, monkeypatch
):
    def make_anew(_):
        facts = json.loads((tmp_path / file).read_text())
        (tmp_path / file).write_text(json.dumps({**facts, key: "of others"}))
        return ""

    data = shutil.copytree(records, tmp_path / "data")
    model = shutil.copytree(trained.export, tmp_path / "model")
    monkeypatch.setattr(page, "render", make_anew)
    flags = words(trained, data, tmp_path / "report", model=model, train_records=0)
    assert evaluate.main(flags) == cli.EXIT_PEER_LOST
    assert capfd.readouterr().err.endswith(said.format((tmp_path / file).parent))
    assert not (tmp_path / "report").exists()
