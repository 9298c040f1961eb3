"""How good a model is on a split: a report for people, metrics.json and predictions.csv for programs.

Promises: the model is scored through its export, as users will call it, on every record once; the report is
one file without a reference to the network, with names and tags escaped.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt

from canopy import cli, contract, model_info, quiet
from canopy.cli import UserError
from canopy.progress import Meter
from trainer import data_info, metrics
from trainer.data_info import DataInfo

BATCH = 64  # images a call of the SavedModel
GALLERY = 12  # pictures of each kind


@dataclass(frozen=True)
class Scored:
    """A split with the model's answer to each of its records."""

    names: list[str]  # image names
    pictures: list[bytes]  # encoded images, as the records hold them
    scores: npt.NDArray[np.float32]  # [rows, classes]
    labels: npt.NDArray[np.int64]  # [rows, classes], 0 or 1


@dataclass(frozen=True)
class Picture:
    """One picture of a gallery."""

    name: str  # of the image
    source: str  # a data: address
    f2: float  # of this row
    true: list[str]  # its tags
    answered: list[tuple[str, float, bool]]  # tag, score, whether it is right


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m trainer.evaluate`."""
    return cli.run(lambda: _evaluate(_flags(argv)))


def _flags(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        "python -m trainer.evaluate", "Scores a model on a split and writes report.html and metrics.json."
    )
    parser.add_argument(
        "--model", required=True, metavar="FOLDER", help="the trainer's export, local or gs://"
    )
    parser.add_argument("--data", required=True, metavar="FOLDER", help="records, local or gs://")
    parser.add_argument("--split", default="validation", metavar="NAME", help="which of the data's splits")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="for report.html and metrics.json")
    return parser.parse_args(argv)


def _evaluate(flags: argparse.Namespace) -> None:
    if "://" not in flags.data:
        data_info.read(flags.data).shards(flags.split)
    with quiet.importing():
        import tensorflow as tf

        from trainer.checkpoints import write_text
        from trainer.validation import Validation
    info = data_info.read(flags.data)
    described = _model_json(tf, flags.model)
    if tuple(described["classes"]) != info.vocabulary:
        raise UserError(
            f"--model {flags.model} knows other classes than --data {flags.data}: train it on this data"
        )
    found = _score(tf, flags.model, info, flags.split)
    result = Validation.of(found.scores, found.labels, info.vocabulary, described["thresholds"])
    output = flags.output.rstrip("/")
    document = {
        "model": flags.model,
        "data": flags.data,
        "split": flags.split,
        "fingerprint": info.fingerprint,
    }
    document |= result.summary
    page = _page(document, described, info, found)
    write_text(f"{output}/metrics.json", json.dumps(document, indent=1))
    write_text(f"{output}/predictions.csv", _predictions(described, found))
    write_text(f"{output}/report.html", page)
    print(f"{flags.split}: {len(found.names):,} records, {result.sentence()}\nreport: {output}/report.html")


def _model_json(tf: Any, folder: str) -> dict[str, Any]:
    path = f"{folder}/{contract.MODEL_JSON}"
    content = None
    if tf.io.gfile.exists(path):
        with tf.io.gfile.GFile(path, "rb") as file:
            content = file.read()
    return model_info.parse(content, folder).document


def _score(tf: Any, model: str, info: DataInfo, split: str) -> Scored:
    """Scores every record of a split through the export's `serving_default`."""
    from trainer.dataset import encoded

    shards = info.shards(split)
    call = tf.saved_model.load(model).signatures[contract.SIGNATURE_JPEG]
    names: list[str] = []
    pictures: list[bytes] = []
    scores, labels = [], []
    total = sum(shard.records for shard in shards)
    with Meter(f"evaluating {split}", total) as meter:
        for batch_names, images, multi_hot in encoded(shards, len(info.vocabulary)).batch(BATCH):
            scores.append(call(image_bytes=images)["scores"].numpy())
            labels.append(multi_hot.numpy())
            names += [name.decode("utf-8", "replace") for name in batch_names.numpy()]
            pictures += list(images.numpy())
            meter.update(len(names))
    return Scored(names, pictures, np.concatenate(scores), np.concatenate(labels))


def _predictions(described: dict[str, Any], found: Scored) -> str:
    """A CSV row a record: its name, its tags, the model's."""
    tags = np.asarray(described["classes"], object)
    answered = metrics.apply_thresholds(found.scores, described["thresholds"])
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("image_name", "tags", "predicted"))
    for name, true, given in zip(found.names, found.labels.astype(bool), answered, strict=True):
        writer.writerow((name, " ".join(tags[true]), " ".join(tags[given])))
    return out.getvalue()


def _page(document: dict[str, Any], described: dict[str, Any], info: DataInfo, found: Scored) -> str:
    """Renders the report."""
    thresholds = np.asarray(described["thresholds"])
    answered = metrics.apply_thresholds(found.scores, thresholds)
    rows = metrics.fbeta_rows(answered, found.labels)
    order = np.argsort(rows, kind="stable")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trainer"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["figure"] = lambda value, digits=3: (
        "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"
    )
    predicted = answered.mean(axis=0)
    return environment.get_template("report.html").render(
        document=document,
        facts=info.facts,
        config=described["config"],
        never=[tag for tag, share in zip(info.vocabulary, predicted, strict=True) if share == 0],
        always=[tag for tag, share in zip(info.vocabulary, predicted, strict=True) if share == 1],
        constant_answer=len(np.unique(answered, axis=0)) == 1,
        worst=[_picture(found, answered, rows, i, info.vocabulary) for i in order[:GALLERY]],
        best=[_picture(found, answered, rows, i, info.vocabulary) for i in order[::-1][:GALLERY]],
    )


def _picture(found: Scored, answered: Any, rows: Any, row: int, tags: tuple[str, ...]) -> Picture:
    kind = "png" if found.pictures[row].startswith(b"\x89PNG") else "jpeg"
    data = base64.b64encode(found.pictures[row]).decode()
    return Picture(
        name=found.names[row],
        source=f"data:image/{kind};base64,{data}",
        f2=float(rows[row]),
        true=[tag for i, tag in enumerate(tags) if found.labels[row, i]],
        answered=[
            (tag, float(found.scores[row, i]), bool(found.labels[row, i]))
            for i, tag in enumerate(tags)
            if answered[row, i]
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
