"""Backbones from TensorFlow Hub: any image feature vector, by its address or as a local SavedModel.

Promises: a handle that cannot be used ends in one sentence, and at once if it is a local folder that is
missing; where the model lets its caller choose the momentum of BatchNormalization, it gets ours.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from canopy import own
from canopy.cli import UserError, first_line
from canopy.transient import told
from trainer.config import Config

# The keyword of Hub's common signature for image models that are to be fine-tuned.
MOMENTUM = "batch_norm_momentum"
CACHE = "TFHUB_CACHE_DIR"  # Hub's variable: where it keeps what it downloads


def features(config: Config, images: Any) -> Any:
    """Loads `--backbone hub:HANDLE` and applies it, as a layer named `backbone`.

    Args:
        config: the run's settings.
        images: symbolic float32[batch, size, size, 3] in 0..1, as Hub's image models take them.

    Returns:
        Symbolic float32[batch, features].

    Raises:
        UserError: where the handle cannot be loaded, or is no feature vector of images of this size.
    """
    handle = config.backbone.removeprefix("hub:")
    try:
        with warnings.catch_warnings():  # of its own import, about setuptools: nothing that a user can mend
            warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
            import tensorflow_hub

        if "://" in handle:
            _keep_apart()
        loaded = tensorflow_hub.load(handle)
        if not callable(loaded):
            raise ValueError("it cannot be called, as Hub's feature vectors and what tf_keras saves can")
        arguments = {MOMENTUM: config.bn_momentum} if _takes_momentum(loaded) else None
        # Its variables and inputs are float32, whatever the policy: Keras would hand it another type.
        layer = tensorflow_hub.KerasLayer(
            loaded, trainable=True, arguments=arguments, name="backbone", dtype="float32"
        )
    except Exception as error:  # hub raises whatever its resolver or TensorFlow did
        raise UserError(f"--backbone {config.backbone} cannot be loaded ({first_line(error)})") from error
    try:
        found = layer(images)
    except Exception as error:  # likewise: the model is somebody else's code
        why = f"its own are of {sizes} pixels" if (sizes := _sizes(loaded)) else first_line(error)
        raise UserError(
            f"--backbone {config.backbone} takes no images of --image_size {config.image_size} ({why})"
        ) from error
    if len(found.shape) != 2 or not found.shape[1]:
        raise UserError(
            f"--backbone {config.backbone} gives a tensor of shape {found.shape} and no feature vector: take "
            "the handle whose path has feature_vector"
        )
    return found


def check(backbone: str) -> None:
    """Finds out whether a local backbone is there; costs no import.

    Args:
        backbone: `--backbone`.

    Raises:
        UserError: where it is not.
    """
    handle = backbone.removeprefix("hub:")
    try:
        if handle != backbone and "://" not in handle and not Path(handle).exists():
            raise UserError(f"--backbone {backbone}: there is no such folder")
    except OSError as error:
        raise told(f"--backbone {backbone} cannot be read ({error.strerror})", error) from error


def _keep_apart() -> None:
    """Has Hub keep what it downloads where nobody else can have put a model in its place.

    By itself it takes what lies in a folder of a well-known name among everybody's temporary files.
    """
    if not os.environ.get(CACHE):
        if (folder := own.folder()) is None:
            raise OSError(f"there is no place of this user's own for a download: name one with {CACHE}")
        os.environ[CACHE] = str(folder / "tfhub_modules")


def _sizes(loaded: Any) -> str:
    """Height and width of the images that a loaded model is made for; empty where it takes any."""
    functions = getattr(vars(loaded).get("__call__"), "concrete_functions", None) or ()
    shapes = [getattr(each, "shape", None) for f in functions for each in f.structured_input_signature[0][:1]]
    sides = {(shape[1], shape[2]) for shape in shapes if shape is not None and shape.rank == 4}
    fixed = sorted(each for each in sides if None not in each)
    return " or ".join(f"{height} x {width}" for height, width in fixed)


def _takes_momentum(loaded: Any) -> bool:
    """Whether a loaded model's call has the keyword."""
    spec = getattr(vars(loaded).get("__call__"), "function_spec", None)
    return spec is not None and MOMENTUM in [*spec.fullargspec.args, *spec.fullargspec.kwonlyargs]
