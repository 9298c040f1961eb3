"""How good a model is on a split: a report for people, metrics.json and predictions.csv for programs.

Promises: the model is scored through its export, as users will call it, on every record once; the report is
one file without a reference to the network, with names and tags escaped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from canopy import cli, contract, model_info, quiet, tables
from canopy.cli import TryAgainError, UserError
from canopy.model_info import ModelInfo
from canopy.phrases import several
from trainer import data_info, flags, metrics, outputs
from trainer.data_info import DataInfo
from trainer.flags import flag

if TYPE_CHECKING:  # it brings TensorFlow, and flags are checked before that
    from trainer.report.split import Scored


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to evaluate; each field is the flag of the same name."""

    model: str = flag("the trainer's export, local or gs://", metavar="FOLDER")
    data: str = flag("records, local or gs://", metavar="FOLDER")
    output: str = flag("for report.html, metrics.json and predictions.csv", metavar="FOLDER")
    split: str = flag("which of the data's splits", "validation", metavar="NAME")
    train_records: int = flag(
        "training pictures, at most, that the split's are compared with (duplicates, brightness, …); 0: none",
        50_000,  # some seconds a 10,000, and 300 bytes each
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m trainer.evaluate`."""
    return cli.run(lambda: _evaluate(_flags(argv)))


def _flags(argv: Sequence[str] | None) -> Settings:
    parser = cli.Parser(
        "python -m trainer.evaluate",
        "Scores a model on a split and writes report.html, metrics.json and predictions.csv.",
    )
    flags.add(parser, Settings)
    given = vars(parser.parse_args(argv))
    for name in ("model", "data", "output"):
        if not given[name]:
            raise UserError(f"--{name} is empty: it must name a folder")
        given[name] = cli.folder(given[name])
    settings = Settings(**given)
    if settings.train_records < 0:
        raise UserError(f"--train_records must not be negative, and is {settings.train_records}")
    outputs.check_folder("--output", settings.output)
    return settings


def _evaluate(settings: Settings) -> None:
    if "://" not in settings.data:  # before TensorFlow takes its seconds
        data_info.read(settings.data).shards(settings.split)
    with quiet.importing():
        from trainer.files import REFUSED, refusal, write_text
        from trainer.report import findings, page, split
        from trainer.validation import Validation
    info = data_info.read(settings.data)
    info.check_counts()
    model = _model_info(settings.model)
    _check_classes(settings, model, info)
    info.shards(settings.split)
    # First: it takes less long, and a shard that is damaged is found before the split is scored.
    others = split.look(info, "train", 0 if settings.split == "train" else settings.train_records)
    scored = split.score(settings.model, info, settings.split)
    result = Validation.of(scored.scores, scored.labels, info.vocabulary, model.thresholds)
    found = findings.gather(model, info, settings.split, scored=scored, others=others, summary=result.summary)
    files = {
        "metrics.json": json.dumps(found.document, indent=1),
        "predictions.csv": _predictions(model, scored),
        "report.html": page.render(found),
    }
    if data_info.read(settings.data).fingerprint != info.fingerprint:
        raise TryAgainError(f"--data {info.folder} was preprocessed again meanwhile: evaluate once more")
    if _model_info(settings.model) != model:
        raise TryAgainError(f"--model {settings.model} was exported again meanwhile: evaluate once more")
    try:
        # The largest first: where there is no room for it, what an earlier evaluation wrote stays together.
        for name, text in sorted(files.items(), key=lambda file: -len(file[1])):
            write_text(f"{settings.output}/{name}", text)
    except REFUSED as error:
        text = f"--output {settings.output} cannot be written to ({cli.first_line(error)})"
        raise refusal(text, error) from error
    raised = [check for check in found.checks if check.verdict != "pass"]
    cli.tell(
        [
            f"{settings.split}: {several(len(scored.names), 'record')}, {result.sentence()}",
            *(f"{check.verdict}: {check.sentence}" for check in raised),
            f"report: {settings.output}/report.html",
        ]
    )


def _model_info(folder: str) -> ModelInfo:
    import tensorflow as tf

    from trainer.files import is_there, read, refusal

    path = f"{folder}/{contract.MODEL_JSON}"
    content = None
    try:
        if is_there(path):
            content = read(path)
    except tf.errors.OpError as error:
        raise refusal(f"--model {folder} cannot be read ({cli.first_line(error)})", error) from error
    return model_info.parse(content, folder)


def _check_classes(settings: Settings, model: ModelInfo, info: DataInfo) -> None:
    if model.classes == info.vocabulary:
        return
    only_data = sorted(set(info.vocabulary) - set(model.classes))
    only_model = sorted(set(model.classes) - set(info.vocabulary))
    parts = [f"{len(only_data)} only in the data, such as {only_data[0]!r}"] if only_data else []
    parts += [f"{len(only_model)} only in the model, such as {only_model[0]!r}"] if only_model else []
    raise UserError(
        f"--model {settings.model} knows other classes than --data {settings.data} "
        f"({'; '.join(parts) or 'the same in another order'}): "
        + ("train it on this data" if only_data else data_info.ALIKE)
    )


def _predictions(model: ModelInfo, scored: Scored) -> str:
    """A CSV row a record: its name, its tags, the model's."""
    tags = np.asarray(model.classes, object)
    answered = metrics.apply_thresholds(scored.scores, model.thresholds)
    rows = (
        (name, " ".join(tags[true]), " ".join(tags[given]))
        for name, true, given in zip(scored.names, scored.labels, answered, strict=True)
    )
    return tables.as_csv(("image_name", "tags", "predicted"), rows)


if __name__ == "__main__":
    sys.exit(main())
