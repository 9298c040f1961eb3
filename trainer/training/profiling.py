"""A profile of some training steps for TensorBoard (`--profile`).

Promises: the steps behind the warm-up are recorded, tracing and the first reads left out; the chief alone
writes; without the flag nothing is done and nothing costs; a storage that refuses the profile ends no run.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import tensorflow as tf

from canopy.cli import first_line
from trainer.files import REFUSED

log = logging.getLogger("canopy")

WARM_UP_STEPS = 10  # the first one traces, the next ones fill buffers
PROFILED_STEPS = 10  # enough for a mean; a profile takes some 100 kB a step


class Profiler:
    """Records steps `WARM_UP_STEPS` to `WARM_UP_STEPS + PROFILED_STEPS` of a start of a run."""

    def __init__(self, model_dir: str, active: bool) -> None:
        """Records nothing yet.

        Args:
            model_dir: the profile goes to `logs/plugins/profile` in it, where TensorBoard looks.
            active: whether to record at all.
        """
        self._folder, self._active = f"{model_dir}/logs", active
        self._taken, self._recording = 0, False

    def __enter__(self) -> Profiler:
        return self

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Wraps step `number`."""
        if not self._active:
            yield
            return
        if self._taken == WARM_UP_STEPS:
            with _told_where_refused():
                tf.profiler.experimental.start(self._folder)
                self._recording = True
        with tf.profiler.experimental.Trace("train", step_num=number, _r=1):
            yield
        self._taken += 1
        if self._recording and self._taken == WARM_UP_STEPS + PROFILED_STEPS:
            self._stop()

    def _stop(self) -> None:
        self._recording = False
        with _told_where_refused():
            tf.profiler.experimental.stop()
            log.info("a profile of %d steps is in %s", self._taken - WARM_UP_STEPS, self._folder)

    def __exit__(self, *_: object) -> None:
        if self._recording:
            self._stop()
        elif self._active and self._taken <= WARM_UP_STEPS:
            log.warning("--profile needs more than %d steps: there is no profile", WARM_UP_STEPS)


@contextlib.contextmanager
def _told_where_refused() -> Iterator[None]:
    try:
        yield
    except REFUSED as error:
        log.warning("there is no profile: %s", first_line(error))
