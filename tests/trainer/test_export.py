"""What is handed on: it takes the archive's own files, and says the same whichever way it is asked."""

import functools
import hashlib
import io
import json
import logging
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from PIL import Image
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.autograph.impl import api

from beam_jobs.images import to_rgb
from canopy import __version__
from canopy.cli import TryAgainError, UserError
from canopy.sample.encode import Kind, encode
from tests.trainer.untrained import tell_pictures_apart
from trainer import data_info, export, model
from trainer.config import Config
from trainer.decoding import batch, resize

PICTURE = np.asarray(
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (5, 5, 3), np.uint8)).resize((64, 64))
)


def thresholds(info):
    return [0.5 - number / 100 for number in range(len(info.vocabulary))]


@pytest.fixture(scope="module")
def made(records, tmp_path_factory):
    """An untrained network's export, with the network."""
    folder = tmp_path_factory.mktemp("export")
    config = Config(data=str(records), model_dir=str(folder), image_size=32, alpha=0.35, weights="none")
    info = data_info.read(str(records))
    tf_keras.utils.set_random_seed(0)
    network = model.build(config, len(info.vocabulary), [0.3] * len(info.vocabulary), None)
    head = network.get_layer("logits")
    head.kernel.assign(tf.random.stateless_normal(head.kernel.shape, [1, 2], stddev=0.01))
    tell_pictures_apart(network)
    return network, export.export(network, config, info, thresholds(info), {"f2": 0.5}), info


@functools.cache
def load(folder):
    return tf.saved_model.load(folder)


def served(folder, signature, **inputs):
    return load(folder).signatures[signature](**inputs)["scores"].numpy()


def test_jpeg_bytes_score_as_the_training_path_does(made):
    network, folder, _ = made
    plain = io.BytesIO()
    Image.fromarray(PICTURE).save(plain, "JPEG", quality=95)
    pictures = batch(tf.constant([plain.getvalue()]), tf.constant([[64, 64]]), 1, 32)
    images = tf.cast(pictures, tf.float32)
    expected = tf.sigmoid(network(images, training=False)).numpy()
    scores = served(folder, "serving_default", image_bytes=tf.constant([plain.getvalue()]))
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("kind", [Kind.PLANET, Kind.CMYK, Kind.GREY])
def test_the_archives_own_files_score_as_their_pixels_do(made, kind):
    data = encode(PICTURE, kind)
    by_bytes = served(made[1], "serving_default", image_bytes=tf.constant([data]))
    by_pixels = served(made[1], "rgb", rgb=tf.constant(to_rgb(data, least_side=32)[None]))
    np.testing.assert_allclose(by_bytes, by_pixels, atol=1e-5)
    black = served(made[1], "rgb", rgb=tf.zeros([1, 64, 64, 3], tf.uint8))
    assert np.abs(by_pixels - black).max() > 0.05, "it scores as a black picture does"


def test_tensorflow_serving_finds_the_signature_of_the_documents_in_a_copy_called_by_a_number(made, tmp_path):
    copy = shutil.copytree(made[1], tmp_path / "planet" / "1")
    (graph,) = SavedModel.FromString((copy / "saved_model.pb").read_bytes()).meta_graphs
    assert list(graph.meta_info_def.tags) == ["serve"]
    found = graph.signature_def["serving_default"]
    assert found.method_name == "tensorflow/serving/predict"
    told = [
        {name: (tf.as_dtype(each.dtype), tf.TensorShape(each.tensor_shape)) for name, each in side.items()}
        for side in (found.inputs, found.outputs)
    ]
    classes = len(made[2].vocabulary)
    assert told == [
        {"image_bytes": (tf.string, tf.TensorShape([None]))},
        {"scores": (tf.float32, tf.TensorShape([None, classes]))},
    ]
    data = tf.constant([encode(PICTURE, Kind.PLANET)])
    here, there = (served(str(path), "serving_default", image_bytes=data) for path in (made[1], copy))
    np.testing.assert_array_equal(here, there)


def test_no_files_have_no_scores(made):
    scores = served(made[1], "serving_default", image_bytes=tf.constant([], tf.string))
    assert scores.shape == (0, len(made[2].vocabulary))


def test_pictures_of_several_sizes_may_stand_in_one_batch_of_files(made):
    files = [encode(PICTURE[:side, :side], Kind.PLANET) for side in (64, 40, 17)]
    assert served(made[1], "serving_default", image_bytes=tf.constant(files)).shape[0] == 3


def test_files_become_pictures_on_the_processor_and_are_scored_wherever_the_caller_likes(made):
    def devices(method):
        (concrete,) = getattr(load(made[1]), method).concrete_functions
        return {op.type: op.device for op in concrete.graph.get_operations()}

    by_bytes, by_pixels = devices("from_jpeg"), devices("from_rgb")
    assert by_bytes["StatelessWhile" if "StatelessWhile" in by_bytes else "While"].endswith("CPU:0")
    assert by_bytes["Conv2D"] == by_pixels["Conv2D"] == ""
    # What is known of their number and size is known there: a GPU would be waited for.
    assert by_bytes["ConcatV2"].endswith("CPU:0")
    assert by_pixels["All"].endswith("CPU:0")


def test_the_tensorflow_lite_file_gives_the_same_scores_of_any_number_of_pictures(made):
    from ai_edge_litert.interpreter import Interpreter  # what predicts by it, and what its users have

    network, folder, _ = made
    images = np.repeat(np.asarray(resize(PICTURE[None], 32), np.float32), 3, axis=0)
    images[1:] /= 2
    serve = Interpreter(model_path=f"{folder}/model.tflite").get_signature_runner("serving_default")
    expected = tf.sigmoid(network(images, training=False))
    np.testing.assert_allclose(serve(images=images)["scores"], expected, atol=1e-4)


def test_model_json_says_what_prediction_and_report_need(made):
    _, folder, info = made
    found = json.loads(Path(folder, "model.json").read_text())
    assert found["format_version"] == 1
    assert found["canopy_version"] == __version__
    assert found["classes"] == list(info.vocabulary)
    assert found["thresholds"] == thresholds(info)
    assert found["image_size"] == 32
    assert found["metrics"] == {"f2": 0.5}
    assert found["config"]["alpha"] == 0.35
    assert found["dataset"] == {"name": "planet", "fingerprint": info.fingerprint}
    lite = Path(folder, "model.tflite").read_bytes()
    assert found["tflite_sha256"] == hashlib.sha256(lite).hexdigest()


def test_the_tensorflow_lite_file_leaves_padding_to_its_convolutions(made, capsys):
    """Operations of their own for it would take 7% of the time."""
    tf.lite.experimental.Analyzer.analyze(model_path=f"{made[1]}/model.tflite")
    told = capsys.readouterr().out
    assert "DEPTHWISE_CONV_2D" in told
    assert "PAD(" not in told


class Patches(tf_keras.layers.Layer):
    """Somebody else's layer, with an operation that TensorFlow Lite lacks."""

    def call(self, images):
        return tf.image.extract_patches(images, [1, 8, 8, 1], [1, 8, 8, 1], [1, 1, 1, 1], "VALID")


def test_a_network_that_tensorflow_lite_cannot_take_is_exported_without_it(records, tmp_path, caplog):
    logging.getLogger("canopy").propagate = True
    images = tf_keras.Input([32, 32, 3])
    patches = tf_keras.layers.GlobalAveragePooling2D()(Patches()(images))
    info = data_info.read(str(records))
    network = tf_keras.Model(images, tf_keras.layers.Dense(len(info.vocabulary))(patches))
    config = Config(data=str(records), model_dir=str(tmp_path), image_size=32)
    with caplog.at_level("WARNING", logger="canopy"):
        folder = export.export(network, config, info, thresholds(info), {"absent_tags": ["mine"]})
    assert "prediction uses the SavedModel" in caplog.text
    assert "stays where no validation record has the tag: mine" in caplog.text
    assert not (tmp_path / "export" / "model.tflite").exists()
    assert served(folder, "rgb", rgb=tf.zeros([1, 32, 32, 3], tf.uint8)).shape == (1, len(info.vocabulary))


def put(folder, text, scheme=""):
    """A finished export's folder, but for model.json, put in the place of an earlier one."""
    fresh = folder / "export.partial"
    fresh.mkdir()
    (fresh / "saved_model.pb").write_text(text)
    export._put_in_place(f"{scheme}{fresh}", f"{scheme}{folder}/export", text)


@pytest.mark.parametrize("scheme", ["", "file://"], ids=["at once", "file by file"])
def test_a_new_export_takes_the_place_of_the_earlier_one(tmp_path, scheme):
    put(tmp_path, "first", scheme)
    (tmp_path / "export" / "of_the_first").touch()
    shutil.copytree(tmp_path / "export", tmp_path / "export.earlier")  # of one that was killed
    put(tmp_path, "second", scheme)
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == ["model.json", "saved_model.pb"]
    assert (tmp_path / "export" / "model.json").read_text() == "second"


def test_exporting_leaves_no_files_behind(made, tmp_path, monkeypatch):
    network, _, info = made
    config = Config(data=info.folder, model_dir=str(tmp_path / "model"), image_size=32, alpha=0.35)
    monkeypatch.setattr(api, "_TRANSPILER", api.PyToTF())  # it writes once a process
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    export.export(network, config, info, thresholds(info), {"f2": 0.5})
    assert list((tmp_path / "temporary").iterdir()) == []


def test_an_earlier_export_stands_until_the_new_one_is_complete(tmp_path, monkeypatch):
    put(tmp_path, "first")

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(export, "write_text", full)
    with pytest.raises(OSError, match="no space"):
        put(tmp_path, "second")
    assert (tmp_path / "export" / "saved_model.pb").read_text() == "first"
    assert (tmp_path / "export" / "model.json").read_text() == "first"


def test_an_earlier_export_stands_again_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    put(tmp_path, "first")
    rename = tf.io.gfile.rename

    def fails(source, target, overwrite=False):
        if source.endswith(".partial"):
            raise tf.errors.UnknownError(None, None, "Input/output error")
        rename(source, target, overwrite)

    monkeypatch.setattr(tf.io.gfile, "rename", fails)
    (tmp_path / "none yet").mkdir()
    for folder in (tmp_path, tmp_path / "none yet"):
        with pytest.raises(tf.errors.UnknownError):
            put(folder, "second")
    assert (tmp_path / "export" / "saved_model.pb").read_text() == "first"
    assert (tmp_path / "export" / "model.json").read_text() == "first"


def test_an_export_takes_the_place_of_one_that_another_machine_has_removed(tmp_path, monkeypatch):
    put(tmp_path, "first")
    rename, remembered = tf.io.gfile.rename, {f"{tmp_path}/export", f"{tmp_path}/export.earlier"}

    def asked_first(source, target, overwrite=False):
        if not overwrite and target in remembered:
            raise tf.errors.AlreadyExistsError(None, None, "file already exists")
        rename(source, target, overwrite)

    monkeypatch.setattr(tf.io.gfile, "rename", asked_first)
    put(tmp_path, "second")
    shutil.rmtree(tmp_path / "export")
    put(tmp_path, "third")
    assert (tmp_path / "export" / "model.json").read_text() == "third"


def test_an_export_that_moves_file_by_file_has_no_model_json_until_all_are_there(tmp_path, monkeypatch):
    put(tmp_path, "first", "file://")
    rename, before = tf.io.gfile.rename, {}

    def noted(source, target, overwrite=False):
        before[Path(source).name] = list(tmp_path.glob("*/model.json"))
        rename(source, target, overwrite)

    monkeypatch.setattr(tf.io.gfile, "rename", noted)
    put(tmp_path, "second", "file://")
    assert before["export.partial"] == []


def test_an_earlier_export_stands_where_another_run_has_taken_the_folder_meanwhile(made, tmp_path):
    def taken():
        raise UserError("another run has taken the folder")

    network, _, info = made
    put(tmp_path, "first")
    (tmp_path / "export.partial" / "assets").mkdir(parents=True)
    (tmp_path / "export.partial" / "assets" / "of one that was killed").touch()
    config = Config(data="", model_dir=str(tmp_path), image_size=32, alpha=0.35, weights="none")
    with pytest.raises(UserError, match="another run"):
        export.export(network, config, info, [0.2] * len(info.vocabulary), {}, check=taken)
    assert (tmp_path / "export" / "model.json").read_text() == "first"
    assert not list(tmp_path.glob("*/assets/of one*"))


def test_another_run_can_start_from_an_export(made, tmp_path):
    network, folder, info = made
    folder = str(shutil.copytree(folder, tmp_path / "rate [1e-3]"))
    config = Config(data="", model_dir="", image_size=32, alpha=0.35, weights="none")
    other = model.build(config, len(info.vocabulary), [0.5] * len(info.vocabulary), None)
    export.load_weights(other, folder)
    for mine, theirs in zip(other.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_an_export_of_another_network_is_refused(made):
    config = Config(data="", model_dir="", image_size=32, alpha=0.5, weights="none")
    other = model.build(config, 4, [0.5] * 4, None)
    with pytest.raises(UserError, match="its network is not this one"):
        export.load_weights(other, made[1])
    longer = tf_keras.Sequential([made[0], tf_keras.layers.Dense(1)])
    with pytest.raises(UserError, match="its network is not this one"):
        export.load_weights(longer, made[1])


def test_an_export_whose_weights_are_cut_short_or_gone_is_refused(made, tmp_path):
    network, folder, _ = made
    copied = shutil.copytree(folder, tmp_path / "export")
    (variables,) = copied.glob("variables/variables.data*")
    os.truncate(variables, 1000)
    with pytest.raises(UserError, match=rf"--init_from {re.escape(str(copied))}: its weights cannot be read"):
        export.load_weights(network, str(copied))
    variables.unlink()
    with pytest.raises(UserError, match=r"its weights cannot be read .*No such file"):
        export.load_weights(network, str(copied))


def test_a_store_that_fails_while_weights_are_read_is_worth_another_try(made, monkeypatch):
    def busy(*_):
        raise tf.errors.UnavailableError(None, None, "busy")

    monkeypatch.setattr(tf.train.Checkpoint, "read", busy)
    with pytest.raises(TryAgainError, match=r"its weights cannot be read \(busy\)"):
        export.load_weights(made[0], made[1])
