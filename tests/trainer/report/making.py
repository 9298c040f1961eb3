"""Findings, pictures and data folders that the report's tests make themselves."""

import io
import json
import shutil

import numpy as np
from PIL import Image

from trainer import metrics
from trainer.report import pictures, statistics
from trainer.report.check import Check
from trainer.report.looks import Looks, difference_hash
from trainer.report.page import Findings
from trainer.report.training import Curves
from trainer.validation import Validation

TAGS = tuple(f"tag_{letter}" for letter in "abcdefghijklmnopq")


def jpeg(seed=0, size=64, value=None, quality=90):
    """A JPEG of coloured noise in large patches, or of one value."""
    rng = np.random.default_rng(seed)
    pixels = np.full((size, size, 3), value or 0, np.uint8)
    if value is None:
        pixels = rng.integers(0, 256, (8, 8, 3), np.uint8).repeat(size // 8, 0).repeat(size // 8, 1)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality)
    return out.getvalue()


def scored_rows(rows=200, tags=TAGS, seed=0, noise=0.25):
    """Labels and scores that follow them, with mistakes."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((rows, len(tags))) < np.linspace(0.6, 0.05, len(tags))).astype(np.int64)
    labels[labels.sum(axis=1) == 0, 0] = 1
    scores = np.clip(labels * 0.8 + 0.1 + rng.normal(0, noise, labels.shape), 0.001, 0.999)
    return scores.astype(np.float32), labels


def measures(pixels):
    """A picture's measures, in the order of `looks.MEASURES`."""
    given = pixels.astype(float)
    apart = sum(np.abs(np.diff(given, axis=axis)).sum() for axis in (0, 1)) / (2 * given.size)
    return np.array([*given.mean(axis=(0, 1)), *given.std(axis=(0, 1)), apart], np.float32)


def looks(images, names=None):
    """The looks of encoded pictures, computed with Pillow."""
    decoded = [np.asarray(Image.open(io.BytesIO(image)).convert("RGB")) for image in images]
    thumbs = np.stack([np.asarray(Image.fromarray(d).resize((9, 8), Image.Resampling.BOX)) for d in decoded])
    return Looks(
        names=list(names or (f"image_{i}" for i in range(len(images)))),
        digests=[bytes(image) for image in images],
        hashes=difference_hash(thumbs),
        thumbs=thumbs,
        measures=np.stack([measures(d) for d in decoded]),
        flat=np.array([(d.min(axis=(0, 1)) == d.max(axis=(0, 1))).all() for d in decoded]),
    )


def facts(tags=TAGS, **images):
    """canopy.json's content, as far as the page shows it."""
    split = {"records": 200, "bytes": 1_000_000, "tags": dict.fromkeys(tags, 9), "shards": [{}, {}]}
    counts = {"found": 403, "written": 400, "rejected": 3, "suspicious": 0, "suspicious_names": []}
    return {
        "dataset": "made",
        "fingerprint": "0123456789abcdef",
        "images": counts | images,
        "rejects": {"empty": 1, "undecodable": 2},
        "splits": {"train": split, "validation": split},
    }


def findings(tags=TAGS, names=None, training=True, checks=None, rows=200, gallery=4, **changes):
    """Everything a page shows, made up."""
    scores, labels = scored_rows(rows, tags)
    thresholds = [0.4] * len(tags)
    summary = Validation.of(scores, labels, tags, thresholds).summary
    answered = metrics.apply_thresholds(scores, thresholds)
    of_row = metrics.fbeta_rows(answered, labels)
    calibration = statistics.calibration(scores, labels)
    worst, best = pictures.galleries(of_row, scores, labels)
    names = names or [f"image_{i}" for i in range(rows)]

    def shown(i):
        return pictures.picture(
            name=names[i % len(names)],
            encoded=jpeg(i),
            f2=float(of_row[i]),
            scores=scores[i],
            labels=labels[i],
            answered=answered[i],
            tags=tags,
        )

    found = {
        "document": {
            "model": "build/model/export",
            "data": "build/records",
            "split": "validation",
            "fingerprint": "0123456789abcdef",
            **summary,
            "f2_interval": 0.01,
            "calibration": {"expected_calibration_error": calibration.error},
        },
        "checks": checks
        or [
            Check("beats_constant", "Better than one answer", "pass", "It is."),
            Check("duplicates", "No picture known", "look", "Three pictures are known."),
            Check("dead_pictures", "Pictures show something", "fail", "All are black."),
        ],
        "tags": tags,
        "scores": scores,
        "labels": labels,
        "thresholds": thresholds,
        "calibration": calibration,
        "confusions": statistics.confusions(answered, labels),
        "training": Curves([1, 2, 3], [0.7, 0.4, 0.3], [3], [0.5], [0.8], 1) if training else None,
        "worst": [shown(i) for i in worst[:gallery]],
        "best": [shown(i) for i in best[:gallery]],
        "facts": facts(tags),
        "config": {"epochs": 6, "learning_rate": 0.001},
        "versions": {"TensorFlow": "2.21.0"},
    }
    return Findings(**{**found, **changes})


def checks_in(report):
    """The checks of a report, by name."""
    return {check["name"]: check for check in json.loads((report / "metrics.json").read_text())["checks"]}


def rewritten(source, target, change):
    """A copy of a data folder, sound in itself, in which `change` altered each record."""
    import google_crc32c
    import tensorflow as tf

    shutil.copytree(source, target)
    facts = json.loads((target / "canopy.json").read_text())
    for split, found in facts["splits"].items():
        row = 0
        for shard in found["shards"]:
            path = target / shard["name"]
            records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
            with tf.io.TFRecordWriter(str(path)) as writer:
                for record in records:
                    example = tf.train.Example.FromString(record)
                    change(split, row, example.features.feature)
                    writer.write(example.SerializeToString())
                    row += 1
            content = path.read_bytes()
            shard["bytes"] = len(content)
            shard["crc32c"] = f"{google_crc32c.value(content):08x}"
    (target / "canopy.json").write_text(json.dumps(facts))
    return target
