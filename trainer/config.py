"""Every setting of a training run, once: a frozen dataclass whose fields are also the flags.

Promises: `parse` returns a `Config` that `check` has found consistent, or raises `UserError` with one
sentence. Importing this module costs nothing (no TensorFlow), so a launcher can check flags at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from canopy import cli
from canopy.cli import Parser, UserError
from canopy.phrases import several
from trainer import flags
from trainer.flags import flag


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one training run; each field is the flag of the same name."""

    data: str = flag("folder of records that beam_jobs.preprocess wrote, local or gs://")
    model_dir: str = flag("folder for checkpoints, logs and the export, local or gs://")
    epochs: int = flag("passes over the training split", 6)
    batch_size: int = flag("global batch: images per step, over all workers together", 64)
    image_size: int = flag("side in pixels to which every image is resized", 224)
    backbone: str = flag("keras (MobileNetV2), or hub:HANDLE (a TF-Hub feature vector)", "keras")
    early_epochs: int = flag("how many epochs train at --early_image_size first: cheap, and hardly worse", 0)
    early_image_size: int = flag("side in pixels of the images of the early epochs", 64)
    weights: str = flag(
        "initial weights of the keras backbone: imagenet, none, an .h5 FILE, or auto (imagenet where it can "
        "be had, else none with a warning)",
        "imagenet",
    )
    alpha: float = flag("width multiplier of MobileNetV2", 1.0)
    learning_rate: float = flag("peak of the schedule: linear warm-up, then cosine", 1e-3)
    warmup_share: float = flag("share of all steps in which the learning rate warms up", 0.1)
    final_rate_share: float = flag("share of the peak at which the cosine ends", 0.0)
    weight_decay: float = flag("AdamW's decoupled weight decay, on kernels only", 1e-2)
    bn_momentum: float = flag("BatchNormalization momentum (0.999 never leaves ImageNet)", 0.9)
    average_decay: float = flag(
        "decay per step of the moving average of the weights, which is validated and exported; 0: none",
        0.0,
    )
    dropout: float = flag("share of the features that each training step leaves out", 0.0)
    fine_tune_from_epoch: int = flag(
        "epoch, from 0, from which on the backbone trains as well as the head; -1: never", 0
    )
    augment: Literal["d4", "affine", "none"] = flag(
        "d4: random flips and quarter turns on the device; affine: small turns, zooms and shifts as well",
        "d4",
    )
    loss: Literal["bce", "focal", "asymmetric"] = flag(
        "bce: binary cross-entropy; focal, asymmetric: what is decided already counts for less",
        "bce",
    )
    mixup: float = flag(
        "alpha of mixup: images and labels blended in pairs by Beta(alpha, alpha); 0: none", 0.0
    )
    checkpoint_steps: int = flag("steps between checkpoints", 100)
    log_steps: int = flag("steps between lines of metrics.jsonl", 10)
    seed: int = flag("seed of order, augmentation and initial weights", 0)
    mixed_precision: Literal["auto", "native", "float32", "mixed_float16", "mixed_bfloat16"] = flag(
        "auto: mixed_bfloat16 or mixed_float16 on a GPU that has the units, float32 on a CPU; native: the "
        "same, and mixed_bfloat16 on a CPU that has them",
        "auto",
    )
    communication: Literal["ring", "nccl"] = flag(
        "how gradients are exchanged. ring: TensorFlow's own, between devices of any kind; nccl: NVIDIA's, "
        "between GPUs",
        "ring",
    )
    exchange: Literal["float32", "bfloat16"] = flag(
        "type in which gradients travel between devices; bfloat16: half the bytes, and each sum keeps only 8 "
        "significant bits",
        "float32",
    )
    require_gpu: bool = flag("end with exit code 2 where TensorFlow sees no GPU", False)
    init_from: str = flag("an export folder whose weights the run starts from, in place of --weights", "")
    restart: bool = flag("delete this model_dir's earlier run and begin anew", False)
    profile: bool = flag("record some steps after warm-up for TensorBoard's profiler", False)
    log_format: Literal["text", "json"] = flag("form of the log lines", "text")

    @property
    def takes_weights(self) -> bool:
        """Whether `--weights` says what the run begins with: a Hub model and an export bring their own."""
        return self.backbone == "keras" and not self.init_from

    def size_in(self, epoch: int) -> int:
        """Side in pixels of the images that an epoch, counted from 0, trains on."""
        return self.early_image_size if epoch < self.early_epochs else self.image_size


LARGEST = 2**31  # what a whole number must stay below: TensorFlow's int32 and NumPy's generators end there
LARGEST_FLOAT = 3e38  # likewise for TensorFlow's float32

# What may change between a run and its resumption: none of it alters what is learned.
RESUMABLE = frozenset(
    {
        "checkpoint_steps",
        "log_steps",
        "restart",
        "profile",
        "log_format",
        "require_gpu",
        "communication",
        "model_dir",
        "data",
    }
)
FILES = frozenset({"weights", "init_from", "backbone"})  # may name a local file or folder


def parse(argv: Sequence[str] | None = None, prog: str = "python -m trainer.task") -> Config:
    """Turns flags into a checked `Config`.

    Args:
        argv: the flags; None for the process' own.
        prog: the command's name in its help.

    Raises:
        UserError: where a flag is unknown or a value cannot be used.
    """
    parser = Parser(prog, "Trains one worker of a run; trainer.launch starts all of them.")
    flags.add(parser, Config)
    given = vars(parser.parse_args(argv))
    for name in ("data", "model_dir", "init_from"):
        given[name] = cli.folder(given[name])
    config = Config(**given)
    check(config)
    return config


def check(config: Config) -> None:
    """Raises `UserError` for the first setting that cannot be used."""
    for name in ("data", "model_dir"):
        if not getattr(config, name):
            raise UserError(f"--{name} is empty: it must name a folder")
    positive = (
        "epochs",
        "batch_size",
        "image_size",
        "alpha",
        "learning_rate",
        "checkpoint_steps",
        "log_steps",
    )
    for name in positive:
        value = getattr(config, name)
        end = _end(value)
        if not 0 < value < end:
            raise UserError(f"--{name} must be greater than 0 and below {end}, and is {value}")
    shares = ("warmup_share", "final_rate_share", "bn_momentum", "average_decay", "dropout")
    for name in (*shares, "weight_decay", "mixup", "seed"):
        value = getattr(config, name)
        end = 1 if name in shares else _end(value)
        if not 0 <= value < end:
            raise UserError(f"--{name} must be at least 0 and below {end}, and is {value}")
    _check_together(config)


def _end(value: float) -> float:
    return LARGEST_FLOAT if isinstance(value, float) else LARGEST


def _check_together(config: Config) -> None:
    """Raises `UserError` for what a network, or another setting, does not allow."""
    if config.image_size < 32:
        raise UserError(
            f"--image_size must be at least 32 (MobileNetV2 halves it five times), and is {config.image_size}"
        )
    if not 0 <= config.early_epochs < config.epochs:
        raise UserError(
            f"--early_epochs must be at least 0 and fewer than --epochs, and is {config.early_epochs}"
        )
    if config.early_epochs and not 32 <= config.early_image_size < LARGEST:
        raise UserError(
            f"--early_image_size must be at least 32 and below {LARGEST}, and is {config.early_image_size}"
        )
    if config.early_epochs and config.backbone != "keras":
        raise UserError("--early_epochs is for --backbone keras: a Hub model takes images of one size")
    if config.fine_tune_from_epoch < -1:
        raise UserError(
            "--fine_tune_from_epoch must be an epoch from 0, or -1 for never, and is "
            f"{config.fine_tune_from_epoch}"
        )
    if config.backbone != "keras" and not config.backbone.startswith("hub:"):
        raise UserError(f"--backbone must be keras or hub:HANDLE, and is {config.backbone!r}")
    if config.backbone == "hub:":
        raise UserError("--backbone hub: needs a handle behind the colon")
    if config.communication == "nccl" and config.exchange == "bfloat16":
        raise UserError("--communication nccl takes no bfloat16 in TensorFlow: leave --exchange at float32")


def check_batch(batch_size: int, replicas: int) -> int:
    """Divides the global batch over the replicas.

    Args:
        batch_size: images a step over all replicas.
        replicas: devices that train, over all workers.

    Returns:
        Images a step on each replica.

    Raises:
        UserError: where they cannot share it equally.
    """
    if batch_size % replicas:
        lower = batch_size // replicas * replicas
        options = f"{lower} or {lower + replicas}" if lower else f"{replicas}"
        # A run that is resumed has to keep its batch, but may have another number of workers.
        fewer = next(count for count in range(replicas - 1, 0, -1) if batch_size % count == 0)
        raise UserError(
            f"--batch_size {batch_size} cannot be shared equally by {replicas} replicas: use {options}, or "
            f"{several(fewer, 'replica')}"
        )
    return batch_size // replicas


def differences(config: Config, earlier: dict[str, Any]) -> list[str]:
    """Lists the settings in which a run differs from an earlier one that it would resume.

    Args:
        config: the settings now.
        earlier: `dataclasses.asdict` of the earlier settings.

    Returns:
        One `--name: was X, is Y` for each setting that a resumed run must not change.
    """
    now = dataclasses.asdict(config)
    return [
        f"--{name}: was {earlier.get(name)!r}, is {value!r}"
        for name, value in now.items()
        if name not in RESUMABLE and _meant(name, earlier.get(name, value)) != _meant(name, value)
    ]


def _meant(name: str, value: Any) -> Any:
    """A setting with its local path made absolute: a run may be resumed from another working directory."""
    if name not in FILES or not isinstance(value, str) or not value or "://" in value:
        return value
    path = value.removeprefix("hub:")
    return value.removesuffix(path) + str(Path(path).resolve())
