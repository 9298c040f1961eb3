"""How good a model is on a split: a report for people, metrics.json and predictions.csv for programs.

Promises: the model is scored through its export, as users will call it, on every record once; the report is
one file without a reference to the network, with names and tags escaped.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from canopy import cli, contract, model_info, quiet
from canopy.cli import UserError
from canopy.model_info import ModelInfo
from trainer import data_info, metrics, outputs
from trainer.data_info import DataInfo

if TYPE_CHECKING:  # it brings TensorFlow, and flags are checked before that
    from trainer.report.split import Scored

TRAIN_RECORDS = 50_000  # training pictures looked at: some seconds a 10,000, and 300 bytes each


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m trainer.evaluate`."""
    return cli.run(lambda: _evaluate(_flags(argv)))


def _flags(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        "python -m trainer.evaluate", "Scores a model on a split and writes report.html and metrics.json."
    )
    for name, told in (
        ("model", "the trainer's export, local or gs://"),
        ("data", "records, local or gs://"),
        ("output", "for report.html and metrics.json"),
    ):
        parser.add_argument(f"--{name}", type=cli.utf8, required=True, metavar="FOLDER", help=told)
    parser.add_argument("--split", default="validation", metavar="NAME", help="which of the data's splits")
    parser.add_argument(
        "--train_records",
        type=int,
        default=TRAIN_RECORDS,
        metavar="N",
        help="training pictures, at most, that the split's are compared with (duplicates, brightness, …)",
    )
    flags = parser.parse_args(argv)
    if flags.train_records < 0:
        raise UserError(f"--train_records must not be negative, and is {flags.train_records}")
    outputs.check_folder("--output", flags.output)
    flags.model = cli.folder(flags.model)
    return flags


def _evaluate(flags: argparse.Namespace) -> None:
    if "://" not in flags.data:  # before TensorFlow takes its seconds
        data_info.read(flags.data).shards(flags.split)
    with quiet.importing():
        from trainer.files import REFUSED, refusal, write_text
        from trainer.report import findings, page, split
        from trainer.validation import Validation
    info = data_info.read(flags.data)
    model = _model_info(flags.model)
    _check_classes(flags, model, info)
    info.shards(flags.split)
    scored = split.score(flags.model, info, flags.split)
    others = split.look(info, "train", 0 if flags.split == "train" else flags.train_records)
    result = Validation.of(scored.scores, scored.labels, info.vocabulary, model.thresholds)
    found = findings.gather(model, info, flags.split, scored=scored, others=others, summary=result.summary)
    output = flags.output.rstrip("/")
    files = {
        "metrics.json": json.dumps(found.document, indent=1),
        "predictions.csv": _predictions(model, scored),
        "report.html": page.render(found),
    }
    try:
        for name, text in files.items():
            write_text(f"{output}/{name}", text)
    except REFUSED as error:
        raise refusal(f"--output {output} cannot be written to ({cli.first_line(error)})", error) from error
    raised = [check for check in found.checks if check.verdict != "pass"]
    cli.tell(
        [
            f"{flags.split}: {len(scored.names):,} records, {result.sentence()}",
            *(f"{check.verdict}: {check.sentence}" for check in raised),
            f"report: {output}/report.html",
        ]
    )


def _model_info(folder: str) -> ModelInfo:
    import tensorflow as tf

    from trainer.files import refusal

    path = f"{folder}/{contract.MODEL_JSON}"
    content = None
    try:
        if tf.io.gfile.exists(path):
            with tf.io.gfile.GFile(path, "rb") as file:
                content = file.read()
    except tf.errors.OpError as error:
        raise refusal(f"--model {folder} cannot be read ({cli.first_line(error)})", error) from error
    return model_info.parse(content, folder)


def _check_classes(flags: argparse.Namespace, model: ModelInfo, info: DataInfo) -> None:
    if model.classes == info.vocabulary:
        return
    only_data = sorted(set(info.vocabulary) - set(model.classes))
    only_model = sorted(set(model.classes) - set(info.vocabulary))
    parts = [f"{len(only_data)} only in the data, such as {only_data[0]!r}"] if only_data else []
    parts += [f"{len(only_model)} only in the model, such as {only_model[0]!r}"] if only_model else []
    raise UserError(
        f"--model {flags.model} knows other classes than --data {flags.data} "
        f"({'; '.join(parts) or 'the same in another order'}): train it on this data"
    )


def _predictions(model: ModelInfo, scored: Scored) -> str:
    """A CSV row a record: its name, its tags, the model's."""
    tags = np.asarray(model.classes, object)
    answered = metrics.apply_thresholds(scored.scores, model.thresholds)
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("image_name", "tags", "predicted"))
    for name, true, given in zip(scored.names, scored.labels, answered, strict=True):
        writer.writerow((name, " ".join(tags[true]), " ".join(tags[given])))
    return out.getvalue()


if __name__ == "__main__":
    sys.exit(main())
