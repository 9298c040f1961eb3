"""Which engine is loaded, and what is said of one that cannot be."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_jobs import storage
from beam_jobs.scoring import engines
from beam_jobs.scoring.engines import AUTO, LITE, SAVED_MODEL
from canopy import cuda, machine, shared_disk
from canopy.cli import TryAgainError, UserError
from tests.beam_jobs.gcs_server import Faulty
from tests.beam_jobs.predicting import archive as archive
from tests.beam_jobs.predicting import chips as chips
from tests.beam_jobs.predicting import model as model
from tests.beam_jobs.scoring.test_engines import pictures as pictures
from tests.beam_jobs.scoring.test_engines import scores_of
from tests.conftest import ROOT, without_progress


def test_an_exports_description_is_read_from_its_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--model .*there is no model\.json"):
        engines.read_info(str(tmp_path))
    described = {"format_version": 1, "classes": ["clear"], "thresholds": [0.2], "image_size": 16}
    (tmp_path / "model.json").write_text(json.dumps({**described, "metrics": {"constant_tags": []}}))
    assert engines.read_info(str(tmp_path)).classes == ("clear",)


def test_an_export_that_another_machine_has_just_made_is_found(tmp_path: Path, monkeypatch: Any) -> None:
    described = {"format_version": 1, "classes": ["clear"], "thresholds": [0.2], "image_size": 16}

    def look_for(path: str) -> None:  # as a client asks its server, which knows it
        Path(path).write_text(json.dumps({**described, "metrics": {"constant_tags": []}}))

    monkeypatch.setattr(shared_disk, "look_for", look_for)
    assert engines.read_info(str(tmp_path)).classes == ("clear",)


def test_with_tensorflow_lite_the_command_never_imports_tensorflow(
    model: Path, chips: Path, tmp_path: Path
) -> None:
    program = (
        "import sys\n"
        "from beam_jobs import predict\n"
        "code = predict.main(sys.argv[1:])\n"
        "print('heavy:', [name for name in ('tensorflow', 'keras') if name in sys.modules])\n"
        "sys.exit(code)\n"
    )
    flags = ("--model", model, "--images", chips, "--output", tmp_path / "out.csv", "--engine", "tflite")
    words = [sys.executable, "-c", program, *map(str, flags)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "heavy: []" in done.stdout
    assert without_progress(done.stderr) == ""


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("missing", "for the export has no model.tflite"),
        ("noise", "for model.tflite cannot be used: "),
        ("empty", "for model.tflite cannot be used: "),
        ("middle", "for model.tflite is not the file whose checksum model.json has"),
        ("size", "for model.tflite cannot be used: it does not take pictures of 32 x 32 pixels"),
    ],
)
def test_without_a_usable_lite_model_the_saved_model_serves_and_the_name_says_why(
    damage: str, said: str, model: Path, pictures: list[Path], tmp_path: Path
) -> None:
    folder = damaged(model, tmp_path, damage)
    name, found = scores_of(engines.read_info(folder), AUTO, pictures)
    assert name.startswith("SavedModel on the processor, for ")
    assert said in name
    if damage != "size":
        _, wanted = scores_of(engines.read_info(str(model)), LITE, pictures)
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def damaged(model: Path, tmp_path: Path, damage: str) -> str:
    folder = tmp_path / "export"
    shutil.copytree(model, folder)
    lite = folder / "model.tflite"
    if damage == "missing":
        lite.unlink()
    elif damage == "size":
        described = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps({**described, "image_size": 32}))
    elif damage == "middle":
        content = bytearray(lite.read_bytes())
        described = json.loads((folder / "model.json").read_text())
        described["tflite_sha256"] = hashlib.sha256(content).hexdigest()
        (folder / "model.json").write_text(json.dumps(described))
        content[len(content) // 2] ^= 0x40
        lite.write_bytes(content)
    else:
        lite.write_bytes(b"" if damage == "empty" else bytes(range(256)) * 40)
    return str(folder)


@pytest.mark.parametrize("kinds", [("uint8",), ("float32", "float32")], ids=["bytes", "two inputs"])
def test_a_lite_model_that_takes_anything_but_a_picture_in_float32_is_not_used(
    kinds: tuple[str, ...], model: Path, tmp_path: Path
) -> None:
    import tensorflow as tf

    def look(*given: Any) -> Any:
        flat = [tf.reshape(tf.cast(each, tf.float32), [-1, 16 * 16 * 3]) for each in given]
        return tf.add_n(flat)[:, :4]

    signature = [tf.TensorSpec([None, 16, 16, 3], kind) for kind in kinds]
    concrete = tf.function(look, input_signature=signature).get_concrete_function()
    folder = Path(damaged(model, tmp_path, "missing"))
    (folder / "model.tflite").write_bytes(
        tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()
    )
    with pytest.raises(UserError, match="does not take pictures of 16 x 16 pixels in float32"):
        engines.load(engines.read_info(str(folder)), LITE, 1)


@pytest.mark.parametrize("damage", ["missing", "noise", "middle"])
def test_asked_for_by_name_tensorflow_lite_is_never_replaced(
    damage: str, model: Path, tmp_path: Path
) -> None:
    folder = damaged(model, tmp_path, damage)
    with pytest.raises(UserError, match=r"--model .*export cannot be loaded \(.*model\.tflite"):
        engines.load(engines.read_info(folder), LITE, 1)


@pytest.mark.parametrize("damage", ["missing", "empty", "noise"])
def test_a_missing_or_damaged_saved_model_is_one_sentence(model: Path, tmp_path: Path, damage: str) -> None:
    folder = Path(damaged(model, tmp_path, "missing"))
    if damage == "missing":
        (folder / "saved_model.pb").unlink()
    else:
        (folder / "saved_model.pb").write_bytes(b"" if damage == "empty" else bytes(range(256)))
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        engines.load(engines.read_info(str(folder)), AUTO, 1)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("left", [0, 100])
def test_variables_that_are_cut_short_are_one_sentence(model: Path, tmp_path: Path, left: int) -> None:
    folder = Path(damaged(model, tmp_path, "missing"))
    for path in (folder / "variables").glob("variables.data*"):
        path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(UserError, match=r"--model .* cannot be loaded") as caught:
        engines.load(engines.read_info(str(folder)), SAVED_MODEL, 1)
    assert "\n" not in str(caught.value)


def test_a_description_of_other_classes_than_the_saved_models_is_one_sentence(
    model: Path, tmp_path: Path
) -> None:
    folder = Path(damaged(model, tmp_path, "missing"))
    described = json.loads((folder / "model.json").read_text())
    described["classes"].append("another")
    described["thresholds"].append(0.5)
    (folder / "model.json").write_text(json.dumps(described))
    count = len(described["classes"])
    with pytest.raises(UserError, match=f"it gives {count - 1} scores where model.json has {count}"):
        engines.load(engines.read_info(str(folder)), SAVED_MODEL, 1)
    shutil.copy(model / "model.tflite", folder)
    with pytest.raises(UserError, match=f"it does not give {count} scores"):
        engines.load(engines.read_info(str(folder)), LITE, 1)


def test_the_saved_model_is_loaded_whatever_its_folder_is_called(model: Path, tmp_path: Path) -> None:
    folder = str(shutil.copytree(model, tmp_path / "rate [1e-3]"))
    assert engines.load(engines.read_info(folder), SAVED_MODEL, 1).folder == folder


def test_the_saved_model_scores_fewer_large_pictures_at_a_time(model: Path, tmp_path: Path) -> None:
    folder = Path(damaged(model, tmp_path, "missing"))
    described = json.loads((folder / "model.json").read_text())
    batches = {}
    for size in (96, 224, 448, 4096):
        (folder / "model.json").write_text(json.dumps({**described, "image_size": size}))
        batches[size] = engines.load(engines.read_info(str(folder)), SAVED_MODEL, 1).loaded[0].batch
    assert batches[96] == batches[224] == 4 * batches[448]
    assert batches[4096] == 1


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("ResourceExhaustedError", "OOM when allocating tensor"),
        ("InternalError", "Failed copying input tensor from CPU:0 to GPU:0: Dst tensor is not initialized."),
    ],
)
def test_memory_that_does_not_suffice_is_one_sentence(
    kind: str, said: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    def fail(rgb: object) -> None:
        raise getattr(tf.errors, kind)(None, None, said)

    (engine,) = engines.load(engines.read_info(str(model)), SAVED_MODEL, 1).loaded
    monkeypatch.setattr(engine, "_call", fail)
    with pytest.raises(UserError, match="does not fit into this machine's memory or its GPU's"):
        engine.scores(np.zeros((engine.batch, 16, 16, 3), np.uint8))
    said = "no kernel"
    with pytest.raises(getattr(tf.errors, kind) if kind == "InternalError" else UserError):
        engine.scores(np.zeros((engine.batch, 16, 16, 3), np.uint8))


@pytest.mark.parametrize("error", [ImportError("no module"), RuntimeError("an operation is missing")])
def test_where_tensorflow_lite_does_not_run_the_saved_model_serves(
    error: Exception, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("ai_edge_litert.interpreter.Interpreter", fail)
    name = engines.load(engines.read_info(str(model)), AUTO, 1).name
    assert name == f"SavedModel on the processor, for model.tflite cannot be used: {error}"


@pytest.mark.parametrize("choice", [AUTO, LITE, SAVED_MODEL])
def test_every_thread_has_an_engine(choice: str, model: Path, tmp_path: Path) -> None:
    info = engines.read_info(damaged(model, tmp_path, "missing") if choice == AUTO else str(model))
    assert len(engines.load(info, choice, 3).loaded) == 3


def test_a_picture_of_more_pixels_than_a_batch_should_hold_is_scored_alone(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pixels, batch in ((4 * 16 * 16, 4), (1, 1)):
        monkeypatch.setattr(engines, "LITE_PIXELS", pixels)
        (engine,) = engines.load(engines.read_info(str(model)), LITE, 1).loaded
        assert engine.batch == batch
    assert engine.scores(np.zeros((1, 16, 16, 3), np.uint8)).shape == (1, 4)


@pytest.mark.parametrize("error", [TryAgainError("the store is busy"), MemoryError("no room")])
def test_what_is_no_damage_of_the_saved_model_is_not_told_as_such(
    error: Exception, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: str) -> None:
        raise error

    monkeypatch.setattr(storage, "below", fail)
    info = replace(engines.read_info(str(model)), folder="gs://here/model")
    with pytest.raises(type(error), match=str(error)):
        engines.load(info, SAVED_MODEL, 1)


def test_an_export_of_a_store_is_copied_alone_whatever_its_name(server: Faulty) -> None:
    for name in ("model[1]/saved_model.pb", "model[1]/assets/deep/a", "model1/b"):
        storage.write_bytes(f"gs://here/{name}", name.encode())
    for given in ("gs://here/model[1]", "gs://here/model[1]/"):
        with engines._on_this_machine(given) as folder:
            found = {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}
            assert found == {"saved_model.pb", "assets/deep/a"}


def test_where_tensorflow_cannot_use_the_gpu_tensorflow_lite_serves(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    monkeypatch.setattr(engines, "has_gpu", lambda: True)
    tf.config.experimental.enable_tensor_float_32_execution(True)
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    name = engines.load(engines.read_info(str(model)), AUTO, 1).name
    assert name == (
        "SavedModel on a GPU" if on_gpu else "TensorFlow Lite (TensorFlow finds no GPU it can use)"
    )
    assert not tf.config.experimental.tensor_float_32_execution_enabled()
    assert engines.load(engines.read_info(str(model)), LITE, 1).name == "TensorFlow Lite"


def test_a_gpu_is_used_where_there_are_libraries_for_it_and_the_name_says_where_they_are_missing(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = engines.read_info(str(model))
    for gpus, there in itertools.product((0, 1), (True, False)):
        monkeypatch.setattr(machine, "gpus", lambda gpus=gpus: gpus)
        monkeypatch.setattr(cuda, "is_installed", lambda there=there: there)
        assert engines.has_gpu() is bool(gpus and there)
        if not there:
            why = " (for the GPU CUDA's Python packages are missing: the extra gpu)" if gpus else ""
            assert engines.load(info, AUTO, 1).name == f"TensorFlow Lite{why}"
    assert engines.load(info, LITE, 1).name == "TensorFlow Lite"  # as was asked


def _score_where_tensors_are_made_on_another_device(folder: str) -> None:
    import tensorflow as tf

    from tests.trainer.replicas import two_replicas

    two_replicas()
    (engine,) = engines.load(engines.read_info(folder), SAVED_MODEL, 1).loaded
    call, given = engine._call, []  # type: ignore[attr-defined]

    def looking(rgb: Any) -> Any:
        given.append(rgb.device[-5:])
        return call(rgb=rgb)

    engine._call = looking  # type: ignore[attr-defined]
    with tf.device("/CPU:1"):  # as on a GPU, which TensorFlow takes by itself
        engine.scores(np.zeros((engine.batch, 16, 16, 3), np.uint8))
    assert given == ["CPU:0"]


def test_pictures_travel_to_a_gpu_within_the_call(model: Path) -> None:
    from tests.trainer.replicas import passes_alone

    assert passes_alone(partial(_score_where_tensors_are_made_on_another_device, str(model)))
