"""What computes scores: both engines say the same, and TensorFlow stays out where it is not needed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from beam_jobs import images
from beam_jobs.scoring import engines
from beam_jobs.scoring.engines import LITE, SAVED_MODEL
from beam_jobs.scoring.scorer import Scorer
from beam_jobs.sources import Source
from beam_jobs.submission import tags_of
from canopy.model_info import ModelInfo
from canopy.sample.encode import Kind, encode
from tests.beam_jobs.making import jpeg, noise, planet
from tests.beam_jobs.predicting import archive as archive
from tests.beam_jobs.predicting import chips as chips
from tests.beam_jobs.predicting import model as model

CLASSES = tuple(f"tag_{i}" for i in range(17))
HEAD_DEVIATION = 0.001


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> ModelInfo:
    """An export of the real network, untrained but with scores that differ from picture to picture.

    Without training a pixel that differs by one level counts for much: the head's weights are small, so that
    scores spread by some thousandths, and another resize would still move them by far more than 1e-4.
    """
    import tensorflow as tf
    import tf_keras

    from trainer import export, model
    from trainer.config import Config
    from trainer.data_info import DataInfo

    folder = str(tmp_path_factory.mktemp("network"))
    config = Config(data="none", model_dir=folder, image_size=96, alpha=0.35, weights="none")
    tf_keras.utils.set_random_seed(0)
    built = model.build(config, len(CLASSES), [0.3] * len(CLASSES), None)
    head = built.get_layer("logits")
    head.kernel.assign(tf.random.stateless_normal(head.kernel.shape, [1, 2], stddev=HEAD_DEVIATION))
    for layer in built.submodules:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            layer.momentum = 0.0  # one batch's own statistics, without which activations fade to nothing
    built(np.stack([noise(i, 96, 96) for i in range(16)]).astype(np.float32), training=True)
    info = cast(DataInfo, SimpleNamespace(vocabulary=CLASSES, name="none", fingerprint="none"))
    thresholds = [0.3] * len(CLASSES)
    return engines.read_info(export.export(built, config, info, thresholds, {"constant_tags": []}))


def scores_of(
    info: ModelInfo, choice: str, paths: Sequence[Path], tta: int = 1
) -> tuple[str, NDArray[np.float32]]:
    """The engine's name and float32[paths, classes]."""
    loaded = engines.load(info, choice, 2)
    with closing(Scorer(loaded, info, tta, images.DEFAULT_MAX_PIXELS)) as scorer:
        found = scorer.score([Source(str(path.parent), path.name) for path in paths])
    assert found.rejects == []
    return loaded.name, found.scores


def served(info: ModelInfo, paths: Sequence[Path]) -> NDArray[np.float32]:
    """The SavedModel's own answer to each file's bytes, resized by TensorFlow within the graph."""
    import tensorflow as tf

    call = tf.saved_model.load(info.folder).signatures["serving_default"]
    files = [path.read_bytes() for path in paths]
    return np.concatenate([call(image_bytes=tf.constant([data]))["scores"].numpy() for data in files])


def agree(found: NDArray[np.float32], wanted: NDArray[np.float32], info: ModelInfo) -> None:
    """Scores within 1e-4; tags the same but for scores within that of a threshold."""
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert wanted.std(axis=0).max() > 5e-4, "the model says the same of every picture"
    clear = np.abs(wanted - np.array(info.thresholds)).min(axis=1) > 1e-4
    assert tags_of(found[clear], info) == tags_of(wanted[clear], info)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of every kind and several sizes, more than a batch."""
    folder = tmp_path_factory.mktemp("pictures")
    sides = [(96, 96), (32, 32), (256, 256), (64, 96), (97, 95), (300, 40), (1, 1), (500, 700)]
    for i, (height, width) in enumerate(sides):
        (folder / f"planet_{i}.jpg").write_bytes(planet(noise(i, height, width)))
        (folder / f"plain_{i}.jpg").write_bytes(jpeg(noise(i, height, width), subsampling=0))
    for kind in Kind:
        (folder / f"kind_{kind.name}.jpg").write_bytes(encode(noise(7, 64, 64), kind))
    found = sorted(folder.iterdir())
    return [path for path in found if _decodes(path)]


def _decodes(path: Path) -> bool:
    try:
        images.to_rgb(path.read_bytes())
    except images.RejectedImage:
        return False
    return True


@pytest.mark.parametrize("choice", [LITE, SAVED_MODEL])
def test_either_engine_scores_files_of_any_size_as_the_served_model_does(
    choice: str, network: ModelInfo, pictures: list[Path]
) -> None:
    assert len(pictures) > 16
    name, found = scores_of(network, choice, pictures)
    assert name == {LITE: "TensorFlow Lite", SAVED_MODEL: "SavedModel on the processor"}[choice]
    agree(found, served(network, pictures), network)


def test_averaged_over_eight_views_both_engines_agree_and_so_do_views_turned_before_the_resize(
    network: ModelInfo, pictures: list[Path]
) -> None:
    import tensorflow as tf

    some = pictures[::3]
    _, lite = scores_of(network, LITE, some, tta=8)
    _, saved = scores_of(network, SAVED_MODEL, some, tta=8)
    agree(lite, saved, network)
    call = tf.saved_model.load(network.folder).signatures["rgb"]
    for path, found in zip(some, lite, strict=True):
        picture = images.to_rgb(path.read_bytes(), least_side=network.image_size)
        views = [
            np.ascontiguousarray(view)
            for turns in range(4)
            for view in (np.rot90(picture, turns), np.rot90(picture, turns)[:, ::-1])
        ]
        slow = np.mean([call(rgb=tf.constant(view[np.newaxis]))["scores"].numpy() for view in views], axis=0)
        np.testing.assert_allclose(found, slow[0], atol=1e-4)


@pytest.mark.parametrize("tta", [1, 8])
def test_both_engines_agree_on_the_original_chips(network: ModelInfo, real_data: Path, tta: int) -> None:
    chips = sorted((real_data / "planet" / "chips256" / "train-jpg").glob("*.jpg"))
    _, lite = scores_of(network, LITE, chips, tta)
    _, saved = scores_of(network, SAVED_MODEL, chips, tta)
    agree(lite, saved, network)
    if tta == 1:
        agree(lite, served(network, chips), network)


def test_a_pictures_scores_do_not_depend_on_those_beside_it(network: ModelInfo, pictures: list[Path]) -> None:
    _, together = scores_of(network, LITE, pictures)
    _, backwards = scores_of(network, LITE, pictures[::-1])
    _, alone = scores_of(network, LITE, pictures[3:4])
    assert np.array_equal(together, backwards[::-1])
    assert np.array_equal(together[3], alone[0])
