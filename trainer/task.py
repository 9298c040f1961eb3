"""One worker of a training run: flags to `Config` to `start.train`.

Promises: exit code 0 with an export written by the chief; 2 for the user's mistake; 75 where another worker
was lost or stopped, or a storage failed for a while, which a restart mends; 143 where SIGTERM came here and
130 where Ctrl-C did, after a checkpoint.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence

from canopy import cli, cuda, quiet
from canopy.contract import HAS_TRAINED
from trainer import cluster, config, link, logs
from trainer.training.stopping import Stopping, TerminatedError, leave

UNLIKE = "is joining a group with"  # "incompatible device type" or "size"
SHARED = "NCCL: invalid usage"  # ncclInvalidUsage, which init.cc of NCCL returns for a "Duplicate GPU"


def main(argv: Sequence[str] | None = None) -> int:
    """Trains one worker and returns its exit code."""
    near = link.from_environment()
    try:
        return cli.run(lambda: _train(argv, near))
    except TerminatedError as error:
        cli.leave_word(str(error))
        return error.code


def _train(argv: Sequence[str] | None, near: link.Near) -> None:
    settings, place = config.parse(argv), cluster.from_tf_config(os.environ)
    stopping = Stopping(near)
    stopping.begin()
    config.check_batch(settings.batch_size, place.workers)
    logs.of_worker(settings.log_format, place.index)
    with quiet.importing():
        import tensorflow as tf

        from trainer.tracing import words
        from trainer.training import loop, start

    try:
        outcome = start.train(settings, place, stopping)
    except loop.LOST as error:
        raise cli.PeerLostError(words(error)) from error
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        if "No space left" in str(error):  # TensorFlow has one name for both
            raise cli.UserError(f"a disk is full: make room, and start again ({words(error)})") from error
        raise _too_large(words(error)) from error
    except tf.errors.OpError as error:
        together = stopping.has_stepped or bool(os.environ.get(HAS_TRAINED))
        internal = isinstance(error, tf.errors.InternalError)
        told = _explained(str(error), words(error), together) if internal and place.workers > 1 else None
        if told := told or _of_gpu(error, words(error), together):
            raise told from error
        raise
    if place.is_chief:
        print(outcome.told())


def _explained(said: str, words: str, together: bool) -> Exception | None:
    """What an internal error of TensorFlow's says of other workers, if anything.

    Args:
        said: all that it says, for another error may come first. nccl_manager.cc tells what NCCL has met, and
            collective_param_resolver_local.cc that a worker's devices are of another kind or number than
            another's.
        words: of it for people.
        together: whether the workers have computed together: then one is gone, or a GPU of one has failed.
            Before, they are set up wrongly, which no restart mends.
    """
    if together and ("NCCL" in said or UNLIKE in said):
        return cli.PeerLostError(words)
    if UNLIKE in said:
        return cli.UserError(f"the workers have unlike devices: give each as many GPUs, or none ({words})")
    if SHARED in said:
        return cli.UserError(
            "NCCL refuses these workers, as it does where two are on one GPU: give each a GPU of its own, or "
            f"take --communication ring ({words})"
        )
    return None


def _of_gpu(error: Exception, words: str, together: bool) -> Exception | None:
    """What an error of TensorFlow's says of this worker's GPU, if anything; see `_explained`."""
    if cuda.lacks_memory(error):
        return _too_large(words)
    if cuda.has_failed(error) or (together and cuda.is_unfit(error)):
        return cli.TryAgainError(f"a GPU has failed, or another process has it to itself ({words})")
    if cuda.is_unfit(error):
        return cli.UserError(
            "cuDNN or cuBLAS does not work here: it does not fit the driver or the GPU, or another process "
            f"has the GPU's memory; with TF_CPP_MIN_LOG_LEVEL=0 TensorFlow says which ({words})"
        )
    return None


def _too_large(words: str) -> cli.UserError:
    return cli.UserError(
        "training does not fit into this machine's memory or its GPU's: take a smaller --batch_size or "
        f"--image_size, or more workers ({words})"
    )


if __name__ == "__main__":
    try:
        leave(main())
    except Exception:
        traceback.print_exc()
        leave(cli.EXIT_BUG)
