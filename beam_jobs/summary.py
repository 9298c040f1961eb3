"""What a finished job says of itself: canopy.json, TensorFlow Datasets' two files, the lines on the screen.

Promises: images found = written + rejected, or the job ends as a bug; everything in canopy.json but what
stands under `run` is a function of the inputs and settings; features.json and dataset_info.json hold
nothing that TensorFlow Datasets does not know, for it parses both strictly.
"""

from __future__ import annotations

import hashlib
import json
import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from beam_jobs.commit import TFDS_LABELS
from beam_jobs.prepare import Prepared
from beam_jobs.runners.choosing import Choice
from beam_jobs.settings import Settings
from beam_jobs.work import Reject, Result
from canopy import __version__, contract
from canopy.phrases import rate, several

_FEATURES = "tensorflow_datasets.core.features"
SUPERVISED = (contract.KEY_ENCODED, contract.KEY_MULTI_HOT)  # what `as_supervised` gives
MOST_DETAIL = 200  # characters: of a hundred unknown tags a few will do
SHOWN_TAGS = 20  # on the screen: enough to see whether the CSV was understood


@dataclass(frozen=True)
class Run:
    """How a job ran: the only part that differs from run to run."""

    id: str  # what the starts of one run have in common, "" where nothing tells
    seconds: float  # from start to the last shard
    plan_seconds: float  # of these, before the pipeline
    choice: Choice  # of runner, workers, threads and processes

    def document(self, found: int) -> dict[str, Any]:
        """The part of canopy.json under `run`."""
        return {
            "id": self.id,
            "seconds": round(self.seconds, 3),
            "plan_seconds": round(self.plan_seconds, 3),
            **asdict(self.choice),
            "images_per_second": round(found / max(self.seconds, 1e-9), 3),
        }


def reject_lines(rejects: Sequence[Reject]) -> bytes:
    """The content of rejects.jsonl, sorted: the same rejects give the same bytes."""
    lines = sorted(json.dumps(asdict(reject), ensure_ascii=False) for reject in rejects)
    return "".join(line + "\n" for line in lines).encode("utf-8", "backslashreplace")


def reject_told(reject: Reject) -> str:
    """A reject for a sentence: the list has the whole of a long detail."""
    return f"{reject.name}, {reject.reason}: {textwrap.shorten(reject.detail, MOST_DETAIL, placeholder=' …')}"


def files(document: Mapping[str, Any], rejects: Sequence[Reject]) -> dict[str, bytes]:
    """All files beside the shards but the commit marker, by name.

    Args:
        document: the content of canopy.json.
        rejects: all of them.
    """
    vocabulary = document["vocabulary"]
    labels = "".join(tag + "\n" for tag in vocabulary).encode()  # in the order of the class ids
    features = features_json(document["encoding"]["image_format"], len(vocabulary))
    return {
        contract.LABELS_TXT: labels,
        TFDS_LABELS: labels,
        contract.FEATURES_JSON: as_json(features),
        contract.REJECTS_JSONL: reject_lines(rejects),
        contract.CANOPY_JSON: as_json(document),
    }


def canopy_json(
    prepared: Prepared, settings: Settings, results: Sequence[Result], rejects: Sequence[Reject], run: Run
) -> dict[str, Any]:
    """The content of canopy.json.

    Args:
        prepared: the plan.
        settings: the job's.
        results: of every shard, final.
        rejects: all of them.
        run: how it went.
    """
    written = sum(result.records for result in results)
    found = prepared.found
    if found != written + len(rejects):
        raise RuntimeError(f"{found} images found, but {written} written and {len(rejects)} rejected")
    main = settings.main_split
    suspicious = sorted(name for result in results for name in result.suspicious)
    document: dict[str, Any] = {
        "format_version": contract.DATA_FORMAT_VERSION,
        "canopy_version": __version__,
        "dataset": settings.dataset,
        "fingerprint": "",
        "seed": settings.seed,
        "vocabulary": list(prepared.vocabulary),
        "encoding": asdict(settings.encoding),
        "images": {
            "found": found,
            "written": written,
            "rejected": len(rejects),
            "suspicious": len(suspicious),
            "suspicious_names": suspicious[:100],
            "mended": sum(result.mended for result in results),
            "files_ignored": prepared.ignored,
        },
        "rejects": dict(sorted(Counter(reject.reason for reject in rejects).items())),
        "labels": {"rows": prepared.label_rows, "without_image": prepared.labels_without_image},
        "channels": _channels([result for result in results if result.split == main], main),
        "splits": {
            name: _split([result for result in results if result.split == name], share, prepared.vocabulary)
            for name, share in settings.splits
        },
    }
    document["fingerprint"] = _fingerprint(document)
    document["run"] = run.document(found)
    return document


def _fingerprint(document: Mapping[str, Any]) -> str:
    """SHA-256 over the settings that shape the records and over every shard's checksum."""
    keys = ("format_version", "dataset", "seed", "vocabulary", "encoding", "splits")
    text = json.dumps({key: document[key] for key in keys}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _split(results: Sequence[Result], share: float, vocabulary: Sequence[str]) -> dict[str, Any]:
    shards = sorted(results, key=lambda result: result.index)
    return {
        "fraction": share,
        "records": sum(shard.records for shard in shards),
        "bytes": sum(shard.bytes for shard in shards),
        "tags": {tag: sum(shard.tags[i] for shard in shards) for i, tag in enumerate(vocabulary)},
        "shards": [
            {"name": shard.shard, "records": shard.records, "bytes": shard.bytes, "crc32c": shard.crc32c}
            for shard in shards
        ],
    }


def _channels(results: Sequence[Result], split: str) -> dict[str, Any]:
    """Mean and standard deviation of each channel over all pixels, 0 to 255, from exact integer sums."""
    pixels = sum(result.channel_pixels for result in results)
    mean, deviation = [], []
    for channel in range(3):
        total = sum(result.channel_sums[0][channel] for result in results)
        squares = sum(result.channel_sums[1][channel] for result in results)
        mean.append(round(total / pixels, 6) if pixels else 0.0)
        variance = (squares * pixels - total * total) / pixels**2 if pixels else 0.0
        deviation.append(round(math.sqrt(variance), 6))
    images = sum(result.channel_images for result in results)
    return {"split": split, "images": images, "mean": mean, "std": deviation}


def features_json(image_format: str, classes: int) -> dict[str, Any]:
    """The content of features.json, as TensorFlow Datasets itself writes it.

    Args:
        image_format: `jpeg`, `png` or `keep` (which holds JPEGs).
        classes: the size of the vocabulary.
    """

    def feature(kind: str, **rest: Any) -> dict[str, Any]:
        return {"pythonClassName": f"{_FEATURES}.{kind}", **rest}

    def tensor(*dimensions: int) -> dict[str, Any]:
        shape = {"dimensions": [str(d) for d in dimensions]} if dimensions else {}
        return {"shape": shape, "dtype": "int64", "encoding": "none"}

    picture = {
        "shape": {"dimensions": ["-1", "-1", "3"]},
        "dtype": "uint8",
        "encodingFormat": "png" if image_format == "png" else "jpeg",
    }
    text = feature("text_feature.Text", text={})
    scalar = feature("scalar.Scalar", tensor=tensor())
    label = feature("class_label_feature.ClassLabel", classLabel={"numClasses": str(classes)})
    features = {
        contract.KEY_ENCODED: feature("image_feature.Image", image=picture),
        contract.KEY_FORMAT: text,
        contract.KEY_FILENAME: text,
        contract.KEY_HEIGHT: scalar,
        contract.KEY_WIDTH: scalar,
        contract.KEY_LABEL: feature("sequence_feature.Sequence", sequence={"feature": label, "length": "-1"}),
        contract.KEY_MULTI_HOT: feature("tensor_feature.Tensor", tensor=tensor(classes)),
    }
    return feature("features_dict.FeaturesDict", featuresDict={"features": features})


def dataset_info_json(document: Mapping[str, Any]) -> dict[str, Any]:
    """The content of dataset_info.json, from canopy.json's."""
    splits = [
        {
            "name": name,
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            "numBytes": str(split["bytes"]),
            "shardLengths": [str(shard["records"]) for shard in split["shards"]],
        }
        for name, split in document["splits"].items()
    ]
    return {
        "name": document["dataset"],
        "version": f"{document['format_version']}.0.0",
        "description": "Satellite image chips with tags, written by Canopy; see canopy.json.",
        "fileFormat": "tfrecord",
        "supervisedKeys": {"tuple": {"items": [{"featureKey": key} for key in SUPERVISED]}},
        "splits": splits,
    }


def as_json(document: Mapping[str, Any]) -> bytes:
    """A document as readable JSON."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"


def lines(document: Mapping[str, Any], output: str) -> list[str]:
    """The summary for the screen, from canopy.json's content."""
    pictures, run = document["images"], document["run"]
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in document["rejects"].items())
    result = [
        f"images     {pictures['found']:,} found, {pictures['written']:,} written, "
        f"{pictures['rejected']:,} rejected" + (f" ({reasons})" if reasons else "")
    ]
    for name, split in document["splits"].items():
        result.append(
            f"{name:<10} {several(split['records'], 'record')} in {several(len(split['shards']), 'shard')}, "
            f"{_size(split['bytes'])}"
        )
    if empty := [name for name, split in document["splits"].items() if not split["records"]]:
        result.append(f"empty      {', '.join(empty)}: no image fell to it; give it more in --splits")
    tags = document["vocabulary"]
    more = f", … {tags[-1]}" if len(tags) > SHOWN_TAGS else ""
    # With commas: a tag of two words has become two, and spaces would hide that.
    result.append(f"tags       {len(tags):,}: {', '.join(tags[:SHOWN_TAGS])}{more}")
    if pictures["suspicious"]:
        result.append(
            f"suspicious {several(pictures['suspicious'], 'image')} of one value throughout "
            "(written; see canopy.json)"
        )
    if ignored := pictures["files_ignored"]:
        what = (
            "files, hidden or no JPEGs by their names"
            if ignored > 1
            else "file, hidden or no JPEG by its name"
        )
        result.append(f"ignored    {ignored:,} {what}")
    rows = document["labels"]
    if rows["without_image"]:  # a name may have several rows
        names = several(rows["without_image"], "name")
        result.append(f"labels     {several(rows['rows'], 'row')}, {names} without an image")
    result.append(f"time       {run['seconds']:.1f} s, {rate(pictures['found'], run['seconds'])} images/s")
    result.append(f"output     {output}")
    return result
