"""What computes scores: TensorFlow Lite on the processor, the SavedModel on a GPU.

Promises: pictures of the model's size in, scores out, the same from either engine within 1e-4; TensorFlow is
imported only where the SavedModel is used, for it takes each process 6 seconds and 500 MB; an export without
a usable `model.tflite` still works, slower, and the name of the engine says why; what is loaded is the export
whose thresholds are going to be applied.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from beam_jobs import storage
from canopy import contract, cuda, machine, model_info, patterns, quiet, shared_disk
from canopy.cli import TryAgainError, UserError, first_line
from canopy.model_info import ModelInfo

AUTO, LITE, SAVED_MODEL = "auto", "tflite", "savedmodel"
CHOICES = (AUTO, LITE, SAVED_MODEL)
# A batch whose activations stay in a core's cache: 8 pictures of 96 pixels, 1 or 2 of 224, were the fastest.
LITE_PIXELS = 8 * 96 * 96
CPU_BATCH, GPU_BATCH = 32, 64  # pictures a call of the SavedModel, of FULL_SIZE at most; fewer of larger ones
FULL_SIZE = 224  # pixels each way
LEAST_BYTES = 12 << 20  # that an engine takes, with a thread's pictures: of TensorFlow Lite it came to 23 MiB
CALLS_AT_ONCE = 2  # of the SavedModel: one computes while the next one's pictures travel


class Engine(Protocol):
    """Computes scores."""

    batch: int  # pictures a call, always: another shape would mean to allocate or tune everything anew
    at_once: int  # calls that go on side by side

    def scores(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Scores uint8[batch, size, size, 3]: float32[batch, classes] in 0..1."""
        ...


@dataclass(frozen=True)
class Engines:
    """A loaded model."""

    name: str  # what computes, for people
    folder: str  # the export
    loaded: list[Engine]  # one for each thread


class _Unusable(Exception):  # noqa: N818 - what is said of a model.tflite, not a failure by itself
    """Why the TensorFlow Lite model cannot be used."""


def read_info(folder: str) -> ModelInfo:
    """Reads an export's `model.json`.

    Raises:
        UserError: there is none, it is damaged, or of a newer format version.
    """
    path = storage.join(folder, contract.MODEL_JSON)
    shared_disk.look_for(path)
    return model_info.parse(storage.read_bytes(path) if storage.exists(path) else None, folder)


def load(info: ModelInfo, choice: str, threads: int) -> Engines:
    """Loads the model, once for a worker.

    Args:
        info: which one.
        choice: one of CHOICES. AUTO takes the SavedModel where there is a GPU, TensorFlow Lite elsewhere.
        threads: how many will compute side by side.

    Raises:
        UserError: the export cannot be loaded.
        TryAgainError: it is another one than `info` is of.
    """
    try:
        found = _load(info, choice, threads)
    except UserError:
        _check_unchanged(info)  # which may be why
        raise
    _check_unchanged(info)  # last: the folder may be replaced between two of its files
    return found


def _check_unchanged(info: ModelInfo) -> None:
    try:
        is_same = read_info(info.folder) == info
    except UserError:  # a moment of its replacing, since it was there
        is_same = False
    if not is_same:
        raise TryAgainError(f"--model {info.folder} was exported again meanwhile: predict once more")


def _load(info: ModelInfo, choice: str, threads: int) -> Engines:
    why = ""
    if is_for_all(choice):
        found = _SavedModel(info)
        if found.on_gpu or choice == SAVED_MODEL:
            return Engines(found.name, info.folder, [found] * threads)
        why = " (TensorFlow finds no GPU it can use)"
    elif choice == AUTO and machine.gpus():
        why = " (for the GPU CUDA's Python packages are missing: the extra gpu)"
    try:
        return Engines(f"TensorFlow Lite{why}", info.folder, _lite(info, threads))
    except _Unusable as error:
        if choice == LITE:
            raise UserError(f"--model {info.folder} cannot be loaded ({error})") from error
        found = _SavedModel(info)
        return Engines(f"{found.name}, for {error}", info.folder, [found] * threads)


def is_for_all(choice: str) -> bool:
    """Whether, of CHOICES, it means one engine that uses the whole machine, its GPU above all."""
    return choice == SAVED_MODEL or (choice == AUTO and has_gpu())


def has_gpu() -> bool:
    """Whether this process may use a GPU of NVIDIA's, and TensorFlow finds libraries for it."""
    return machine.gpus() > 0 and cuda.is_installed()


def _lite(info: ModelInfo, threads: int) -> list[Engine]:
    path = storage.join(info.folder, contract.MODEL_TFLITE)
    if not storage.exists(path):
        raise _Unusable(f"the export has no {contract.MODEL_TFLITE}")
    content = storage.read_bytes(path)
    # It has no checksum of its own: with weights that a disk or a copy spoilt it would score on, wrongly.
    noted = info.document.get(contract.KEY_TFLITE_SHA256)
    if noted is not None and noted != hashlib.sha256(content).hexdigest():
        raise _Unusable(f"{contract.MODEL_TFLITE} is not the file whose checksum {contract.MODEL_JSON} has")
    try:
        with quiet.importing():
            return [_Lite(content, info) for _ in range(threads)]
    except (ImportError, ValueError, RuntimeError) as error:
        raise _Unusable(f"{contract.MODEL_TFLITE} cannot be used: {first_line(error)}") from error


class _Lite:
    """An interpreter of one thread: as many side by side beat one interpreter of many threads."""

    at_once = 1

    def __init__(self, content: bytes, info: ModelInfo) -> None:
        from ai_edge_litert.interpreter import Interpreter

        size = info.image_size
        self.batch = max(1, round(LITE_PIXELS / size**2))
        self._interpreter = Interpreter(model_content=content, num_threads=1)
        given, result = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        takes = [(each["dtype"], list(each["shape"][1:])) for each in given]
        if takes != [(np.float32, [size, size, 3])]:
            raise ValueError(f"it does not take pictures of {size} x {size} pixels in float32")
        if result[0]["shape"][-1] != len(info.classes):
            raise ValueError(f"it does not give {len(info.classes)} scores")
        self._input, self._output = given[0]["index"], result[0]["index"]
        self._interpreter.resize_tensor_input(self._input, [self.batch, size, size, 3])
        self._interpreter.allocate_tensors()

    def scores(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        self._interpreter.tensor(self._input)()[...] = pictures  # bytes become floats where it reads them
        self._interpreter.invoke()
        result: NDArray[np.float32] = self._interpreter.get_tensor(self._output)
        return result


class _SavedModel:
    """The SavedModel, for all threads together."""

    at_once = CALLS_AT_ONCE

    def __init__(self, info: ModelInfo) -> None:
        with quiet.importing():
            import tensorflow as tf
        # On newer GPUs convolutions would cut float32 to 11 significant bits (TensorFloat-32), too few for
        # both engines to agree within 1e-4 behind dozens of layers.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        self.on_gpu = bool(tf.config.list_physical_devices("GPU"))
        self.name = f"SavedModel on {'a GPU' if self.on_gpu else 'the processor'}"
        most = GPU_BATCH if self.on_gpu else CPU_BATCH
        self.batch = max(1, min(most, most * FULL_SIZE**2 // info.image_size**2))
        try:
            with _on_this_machine(info.folder) as folder:
                self._model = tf.saved_model.load(folder)
            self._call = self._model.signatures[contract.SIGNATURE_RGB]
            given = self._call.structured_outputs["scores"].shape[-1]
            if given not in (None, len(info.classes)):
                raise ValueError(
                    f"it gives {given} scores where {contract.MODEL_JSON} has {len(info.classes)}"
                )
        except (MemoryError, TryAgainError):
            raise
        except Exception as error:  # damaged files raise nearly anything: IndexError, DecodeError, OpError
            raise UserError(f"--model {info.folder} cannot be loaded ({first_line(error)})") from error
        self._tf: Any = tf
        self._turn = threading.BoundedSemaphore(CALLS_AT_ONCE)

    def scores(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._turn:
            try:
                with self._tf.device("/CPU:0"):  # copied to the GPU here, it would wait for the other call
                    rgb = self._tf.constant(pictures)
                result: NDArray[np.float32] = self._call(rgb=rgb)["scores"].numpy()
            except self._tf.errors.OpError as error:
                if not cuda.lacks_memory(error):
                    raise
                raise UserError(
                    "scoring does not fit into this machine's memory or its GPU's: --engine tflite needs less"
                ) from error
        return result


@contextlib.contextmanager
def _on_this_machine(folder: str) -> Iterator[str]:
    """A folder of a store as a temporary local one: TensorFlow reads gs:// at one fixed address only."""
    if not storage.is_remote(folder):
        with patterns.plain(folder) as path:
            yield path
        return
    with tempfile.TemporaryDirectory(prefix="canopy-model-") as copy:
        base = folder.rstrip("/") + "/"
        for path in storage.below(folder):
            target = Path(copy, *path.removeprefix(base).split("/"))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(storage.read_bytes(path))
        yield copy
