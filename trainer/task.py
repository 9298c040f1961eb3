"""One worker of a training run: flags to `Config` to `start.train`.

Promises: exit code 0 with an export written by the chief; 2 for the user's mistake; 75 where another worker
was lost or stopped, or a storage failed for a while, which a restart mends; 143 where SIGTERM came here,
after a checkpoint; 130 for Ctrl-C.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence

from canopy import cli, quiet
from canopy.contract import HAS_TRAINED
from trainer import cluster, config, link, logs
from trainer.training.stopping import Stopping, TerminatedError, leave


def main(argv: Sequence[str] | None = None) -> int:
    """Trains one worker and returns its exit code."""
    near = link.from_environment()
    try:
        return cli.run(lambda: _train(argv, near))
    except TerminatedError:
        cli.leave_word("stopped by SIGTERM")
        return cli.EXIT_TERMINATED


def _train(argv: Sequence[str] | None, near: link.Near) -> None:
    settings, place = config.parse(argv), cluster.from_tf_config()
    stopping = Stopping(near)
    stopping.begin()
    config.check_batch(settings.batch_size, place.workers)
    logs.of_worker(settings.log_format, place.index)
    with quiet.importing():
        import tensorflow as tf

        from trainer.training import loop, start

    try:
        outcome = start.train(settings, place, stopping)
    except loop.LOST as error:
        raise cli.PeerLostError(cli.first_line(error)) from error
    except tf.errors.InternalError as error:
        # What NCCL has met, by TensorFlow's nccl_manager.cc: of workers that have computed together, that one
        # is gone. Before, it is set up wrongly, and no restart mends that.
        together = stopping.has_stepped or os.environ.get(HAS_TRAINED)
        if place.workers == 1 or not together or "NCCL" not in str(error):
            raise
        raise cli.PeerLostError(cli.first_line(error)) from error
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        if "No space left" in str(error):  # TensorFlow has one name for both
            raise cli.UserError(
                f"a disk is full: make room, and start again ({cli.first_line(error)})"
            ) from error
        raise cli.UserError(
            "training does not fit into this machine's memory or its GPU's: take a smaller --batch_size or "
            f"--image_size, or more workers ({cli.first_line(error)})"
        ) from error
    if place.is_chief:
        print(outcome.told())


if __name__ == "__main__":
    try:
        leave(main())
    except Exception:
        traceback.print_exc()
        leave(cli.EXIT_BUG)
