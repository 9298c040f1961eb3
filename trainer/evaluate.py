"""How good a model is on a split: a report for people, metrics.json and predictions.csv for programs.

Promises: the model is scored through its export, as users will call it, on every record once; the report is
one file without a reference to the network, with names and tags escaped.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import platform
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from canopy import __version__, cli, contract, model_info, quiet
from canopy.cli import UserError
from canopy.model_info import ModelInfo
from trainer import data_info, metrics, outputs
from trainer.data_info import DataInfo

if TYPE_CHECKING:  # they bring TensorFlow, and flags are checked before that
    from trainer.report.looks import Looks
    from trainer.report.page import Findings
    from trainer.report.split import Scored

TRAIN_RECORDS = 50_000  # training pictures looked at: some seconds a 10,000, and 300 bytes each
FLAT_OPENED = 20  # pictures of one value that Pillow has a look at


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
    if "://" not in flags.data:
        data_info.read(flags.data).shards(flags.split)
    with quiet.importing():
        import tensorflow as tf

        from trainer.files import REFUSED, refusal, write_text
        from trainer.report import page, split
        from trainer.validation import Validation
    info = data_info.read(flags.data)
    model = _model_info(flags.model)
    _check_classes(flags, model, info)
    info.shards(flags.split)
    found = split.score(flags.model, info, flags.split)
    others = split.look(info, "train", 0 if flags.split == "train" else flags.train_records)
    result = Validation.of(found.scores, found.labels, info.vocabulary, model.thresholds)
    findings = _findings(
        flags=flags,
        model=model,
        info=info,
        found=found,
        others=others,
        summary=result.summary,
        tensorflow=tf.__version__,
    )
    output = flags.output.rstrip("/")
    files = {
        "metrics.json": json.dumps(findings.document, indent=1),
        "predictions.csv": _predictions(model, found),
        "report.html": page.render(findings),
    }
    try:
        for name, text in files.items():
            write_text(f"{output}/{name}", text)
    except REFUSED as error:
        raise refusal(f"--output {output} cannot be written to ({cli.first_line(error)})", error) from error
    raised = [check for check in findings.checks if check.verdict != "pass"]
    cli.tell(
        [
            f"{flags.split}: {len(found.names):,} records, {result.sentence()}",
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


def _trained_on(model: ModelInfo) -> str:
    """The fingerprint of the data set that the model was trained on, empty where none is told."""
    dataset = model.document.get("dataset")
    found = dataset.get("fingerprint") if isinstance(dataset, dict) else None
    return found if isinstance(found, str) else ""


def _findings(
    *,
    flags: argparse.Namespace,
    model: ModelInfo,
    info: DataInfo,
    found: Scored,
    others: Looks,
    summary: dict[str, Any],
    tensorflow: str,
) -> Findings:
    """Everything that the report shows."""
    from trainer.report import all_checks, pictures, split, statistics, training
    from trainer.report.page import Findings

    answered = metrics.apply_thresholds(found.scores, model.thresholds)
    rows = metrics.fbeta_rows(answered, found.labels)
    interval = statistics.mean_interval(rows)
    calibration = statistics.calibration(found.scores, found.labels)
    worst, best = pictures.galleries(rows, found.scores, found.labels)
    flat = np.flatnonzero(found.looks.flat)[:FLAT_OPENED].tolist()
    encoded = split.pick(info, flags.split, {*worst, *best, *flat})
    checks = all_checks.run(
        all_checks.Evidence(
            split=flags.split,
            facts=info.facts,
            tags=info.vocabulary,
            trained_on=_trained_on(model),
            thresholds=model.thresholds,
            constant_tags=summary["constant_tags"],
            scored=found,
            answered=answered,
            others=others,
            seen_by_others=[found.names[i] for i in flat if pictures.pillow_sees(encoded[i])],
            calibration=calibration,
        )
    )
    document = {
        "model": flags.model,
        "data": flags.data,
        "split": flags.split,
        "fingerprint": info.fingerprint,
        **summary,
        "f2_interval": _number(interval.half_width),
        "calibration": {
            "expected_calibration_error": calibration.error,
            "counts": calibration.counts,
            "scores": list(map(_number, calibration.scores)),
            "shares": list(map(_number, calibration.shares)),
        },
        "checks": [
            {"name": c.name, "verdict": c.verdict, "title": c.title, "sentence": c.sentence} for c in checks
        ],
    }

    def shown(i: int) -> pictures.Picture:
        return pictures.picture(
            name=found.names[i],
            encoded=encoded[i],
            f2=float(rows[i]),
            scores=found.scores[i],
            labels=found.labels[i],
            answered=answered[i],
            tags=info.vocabulary,
        )

    return Findings(
        document=document,
        interval=interval,
        checks=checks,
        tags=info.vocabulary,
        scores=found.scores,
        labels=found.labels,
        thresholds=model.thresholds,
        calibration=calibration,
        confusions=statistics.confusions(answered, found.labels),
        training=training.read(flags.model),
        worst=[shown(i) for i in worst],
        best=[shown(i) for i in best],
        facts=info.facts,
        config=model.document.get("config", {}),
        versions={
            "Canopy that preprocessed": str(info.facts.get("canopy_version", "not noted")),
            "Canopy that trained": str(model.document.get("canopy_version", "not noted")),
            "Canopy that evaluated": __version__,
            "TensorFlow": tensorflow,
            "NumPy": np.__version__,
            "Python": platform.python_version(),
        },
    )


def _number(value: float) -> float | None:
    """JSON knows neither nan nor infinity: null says that there is no such number."""
    return value if math.isfinite(value) else None


def _predictions(model: ModelInfo, found: Scored) -> str:
    """A CSV row a record: its name, its tags, the model's."""
    tags = np.asarray(model.classes, object)
    answered: npt.NDArray[np.bool_] = metrics.apply_thresholds(found.scores, model.thresholds)
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("image_name", "tags", "predicted"))
    for name, true, given in zip(found.names, found.labels.astype(bool), answered, strict=True):
        writer.writerow((name, " ".join(tags[true]), " ".join(tags[given])))
    return out.getvalue()


if __name__ == "__main__":
    sys.exit(main())
