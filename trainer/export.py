"""The model that is handed on: a SavedModel, a TensorFlow Lite file and `model.json`.

Promises: a folder `export/` with a `model.json` is whole, and an earlier one stands until the new one is; the
SavedModel takes the archive's own JPEGs and gives the scores that training saw; `model.json` says all that
prediction and the report need.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from canopy import __version__, contract, patterns
from canopy.cli import UserError, first_line, printable
from canopy.contract import DEFAULT_THRESHOLD
from canopy.phrases import named
from trainer import decoding, devices
from trainer.config import Config
from trainer.data_info import DataInfo
from trainer.files import REFUSED, delete, is_there, refusal, stand_for_folder, write_text
from trainer.tracing import tidy, traced, words

log = logging.getLogger("canopy")


class Tagger(tf.Module):
    """The network with everything around it that a caller should not have to know."""

    def __init__(self, model: Any, image_size: int) -> None:
        """Wraps a model.

        Args:
            model: from float32[batch, size, size, 3] in 0..255 to logits.
            image_size: side of its images, pixels.
        """
        super().__init__(name="tagger")
        self.weights = list(model.weights)  # what a checkpoint of the export holds, in Keras' order
        # A function keeps the model itself from being saved: Keras would trace each layer once more, and
        # exporting would take several times as long.
        self._logits: Callable[[Any], Any] = lambda images: model(images, training=False)
        self._size = image_size

    @traced(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def from_jpeg(self, image_bytes: Any) -> dict[str, Any]:
        """string[batch], JPEG or PNG files as they are, to float32[batch, classes] under `scores`."""
        # A GPU would walk a file's markers, too, and wait for the processor, which decodes, at each of them.
        with tf.device(devices.HOST):
            images = tf.map_fn(
                lambda image: decoding.from_file(image, self._size),
                image_bytes,
                fn_output_signature=tf.TensorSpec([self._size, self._size, 3], tf.uint8),
                parallel_iterations=16,
            )
            # On a processor TensorFlow's convolutions fail for an empty batch, as a caller's last one may be.
            count = tf.shape(images)[0]
            spare = tf.zeros([tf.cast(count == 0, tf.int32), self._size, self._size, 3], images.dtype)
            images = tf.concat([images, spare], axis=0)
        return {"scores": self._scores(images)[:count]}

    def lite(self) -> bytes:
        """A TensorFlow Lite model: float32[batch, size, size, 3] in 0..255, resized already, to scores."""
        spec = tf.TensorSpec([None, self._size, self._size, 3], tf.float32, name="images")

        def scored(images: Any) -> dict[str, Any]:  # as in the SavedModel's signatures: else it is `output_0`
            return {"scores": self._scores(images)}

        concrete = traced(scored, input_signature=[spec]).get_concrete_function()
        return bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete], self).convert())

    @traced(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="rgb")])
    def from_rgb(self, rgb: Any) -> dict[str, Any]:
        """uint8[batch, height, width, 3] of any size to float32[batch, classes] under `scores`."""
        # TensorFlow resizes bytes there alone, and a GPU would be waited for to know whether they need it.
        with tf.device(devices.HOST):
            pictures = decoding.resize(rgb, self._size)
        return {"scores": self._scores(pictures)}

    def _scores(self, images: Any) -> Any:
        return tf.sigmoid(self._logits(tf.cast(images, tf.float32)))


def export(
    model: Any,
    config: Config,
    info: DataInfo,
    thresholds: list[float],
    metrics: dict[str, Any],
    *,
    check: Callable[[], None] = lambda: None,
) -> str:
    """Writes `{model_dir}/export`, replacing an earlier one.

    Args:
        model: built outside any strategy, with the weights to hand on.
        config: the run's settings.
        info: the data set it was trained on.
        thresholds: one a class, in the order of the vocabulary.
        metrics: of the validation split.
        check: called when all is written, before it takes its place; raises where it must not.

    Returns:
        The folder's path.
    """
    final, fresh = f"{config.model_dir}/export", f"{config.model_dir}/export.partial"
    delete(fresh)
    tagger = Tagger(model, config.image_size)
    signatures = {contract.SIGNATURE_JPEG: tagger.from_jpeg, contract.SIGNATURE_RGB: tagger.from_rgb}
    stand_for_folder(fresh)
    tf.saved_model.save(tagger, fresh, signatures=signatures)
    tidy()
    described = {
        "format_version": contract.MODEL_FORMAT_VERSION,
        "canopy_version": __version__,
        "classes": list(info.vocabulary),
        "thresholds": thresholds,
        "image_size": config.image_size,
        contract.KEY_REDUCED: True,
        "metrics": metrics,
        "config": dataclasses.asdict(config),
        "dataset": {"name": info.name, "fingerprint": info.fingerprint},
    }
    if lite := _lite(tagger):
        with tf.io.gfile.GFile(f"{fresh}/{contract.MODEL_TFLITE}", "wb") as file:
            file.write(lite)
        described[contract.KEY_TFLITE_SHA256] = hashlib.sha256(lite).hexdigest()
    if absent := metrics.get("absent_tags"):
        log.warning(
            "threshold %s stays where no validation record has the tag: %s",
            DEFAULT_THRESHOLD,
            printable(named(absent)),
        )
    check()
    _put_in_place(fresh, final, json.dumps(described, indent=1))
    return final


def _lite(tagger: Tagger) -> bytes:
    """The TensorFlow Lite model; nothing where somebody else's backbone has an operation that it lacks."""
    try:
        return tagger.lite()
    except MemoryError:
        raise
    except Exception as error:  # the converter's own has no base but this
        log.warning(
            "TensorFlow Lite cannot take this network (%s): the export is without %s, and prediction uses "
            "the SavedModel",
            first_line(error),
            contract.MODEL_TFLITE,
        )
        return b""


def _put_in_place(fresh: str, final: str, model_json: str) -> None:
    """Makes `fresh`, complete but for `model.json`, the export."""
    earlier = f"{final}.earlier"
    delete(earlier)
    if "://" in final:
        # Object stores move a folder file by file: without model.json it is no export yet, or no longer.
        delete(final)
        tf.io.gfile.rename(fresh, final)
        write_text(f"{final}/{contract.MODEL_JSON}", model_json)
        return
    write_text(f"{fresh}/{contract.MODEL_JSON}", model_json)
    # A folder cannot be renamed onto another: between the two there is no export, but never half of one. Who
    # may not overwrite would first be asked whether there is one, and may remember what has been removed.
    if is_there(final):
        tf.io.gfile.rename(final, earlier, overwrite=True)
    try:
        tf.io.gfile.rename(fresh, final, overwrite=True)
    except REFUSED:
        with contextlib.suppress(*REFUSED):
            tf.io.gfile.rename(earlier, final, overwrite=True)
        raise
    delete(earlier)


def load_weights(model: Any, folder: str) -> None:
    """Takes up the weights of an export (`--init_from`).

    Args:
        model: of the same backbone and classes; call in the strategy's scope.
        folder: an export.

    Raises:
        UserError: where its network is another one, or its weights are damaged or not there.
        TryAgainError: where they cannot be read for a reason that may pass.
    """
    try:
        with patterns.plain(folder) as path:
            found = tf.train.Checkpoint(weights=list(model.weights)).read(f"{path}/variables/variables")
            found.assert_existing_objects_matched().expect_partial()
    except (AssertionError, ValueError) as error:
        raise UserError(f"--init_from {folder}: its network is not this one ({first_line(error)})") from error
    except (IndexError, tf.errors.OpError) as error:  # the first is what TensorFlow makes of a file cut short
        text = f"--init_from {folder}: its weights cannot be read ({words(error)})"
        raise refusal(text, error) from error
