"""What the tests of prediction share: a model of their own, chips, and a way to run the command."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from beam_jobs import predict
from tests.beam_jobs.making import noise, planet
from tests.conftest import archive as archive  # the trained model's, not this folder's own


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str
    output: Path

    @property
    def rows(self) -> list[tuple[str, str]]:
        with self.output.open(encoding="utf-8", newline="") as file:
            header, *body = csv.reader(file)
        assert header == ["image_name", "tags"]
        return [(name, tags) for name, tags in body]

    @property
    def rejects(self) -> list[tuple[str, str]]:
        lines = (self.output.parent / f"{self.output.name}.rejects.jsonl").read_text("utf-8").splitlines()
        return [(line["name"], line["reason"]) for line in map(json.loads, lines)]


Run = Callable[..., Done]


CLASSES = ("agriculture", "clear", "primary", "water")
CONSTANT = "clear primary"


def export(folder: Path, weights: NDArray[np.float32]) -> Path:
    """An export whose scores tell every picture from the others, as those of a network of few steps do not.

    Args:
        folder: to make.
        weights: float32[16 * 16 * 3, classes], of every pixel's place.
    """
    import tensorflow as tf

    from trainer.decoding import resize

    class Looking(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = tf.Variable(weights)

        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="rgb")])
        def look(self, rgb: Any) -> Any:
            return {"scores": self.small(tf.cast(resize(rgb, 16), tf.float32))}

        @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 3], tf.float32, name="images")])
        def small(self, images: Any) -> Any:
            flat = tf.reshape(images / 255 - 0.5, [-1, 16 * 16 * 3])
            return tf.sigmoid(flat @ self.weights)

    looking = Looking()
    tf.saved_model.save(looking, str(folder), signatures={"rgb": looking.look})
    lite = tf.lite.TFLiteConverter.from_concrete_functions([looking.small.get_concrete_function()], looking)
    (folder / "model.tflite").write_bytes(lite.convert())
    described = {
        "format_version": 1,
        "classes": CLASSES,
        "thresholds": [0.3, 0.5, 0.4, 0.6],
        "image_size": 16,
        "metrics": {"constant_tags": CONSTANT.split()},
    }
    (folder / "model.json").write_text(json.dumps(described))
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = np.random.default_rng(7).normal(0, 0.2, (16 * 16 * 3, 4)).astype(np.float32)
    return export(tmp_path_factory.mktemp("model") / "export", weights)


@pytest.fixture
def run(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Predicts in this process: `run("--images", folder, ...)`."""

    def go(*flags: object, model: Path | str = model, output: Path | str | None = None) -> Done:
        target = output or tmp_path / "out" / "submission.csv"
        capsys.readouterr()
        words = ["--model", model, "--output", target, *flags]
        code = predict.main([str(word) for word in words])
        said = capsys.readouterr()
        return Done(code, said.out, said.err, Path(target))

    return go


@pytest.fixture
def chips(tmp_path: Path) -> Path:
    """A folder of seven chips of two sizes."""
    folder = tmp_path / "chips"
    folder.mkdir()
    for i in range(7):
        (folder / f"chip_{i}.jpg").write_bytes(planet(noise(i, 32, 32 + 8 * (i % 2))))
    return folder


def sample_of(path: Path, names: Iterable[str]) -> Path:
    path.write_text("image_name,tags\n" + "".join(f"{name},clear\n" for name in names), encoding="utf-8")
    return path


def is_one_sentence(done: Done) -> bool:
    return done.err.startswith("error: ") and done.err.count("\n") == 1 and done.out == ""


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()
