"""How the trainer's Python becomes TensorFlow's graphs: as it is written.

Promises: nothing is rewritten by AutoGraph, so a process that ends at once leaves none of its files in the
temporary folder, and each start is most of a second shorter. In return, what is traced must not use a Python
condition or loop over tensors. What fails in a graph can be told in its own words.
"""

from __future__ import annotations

import contextlib
import functools
import re
import sys
from pathlib import Path

import tensorflow as tf

from canopy.cli import first_line

traced = functools.partial(tf.function, autograph=False)
# For functions that build a `tf.data.Dataset`, whose every map would else go through AutoGraph.
as_written = tf.autograph.experimental.do_not_convert
# What TensorFlow says before it says what went wrong: where that was traced, how many errors there are.
_PREAMBLE = re.compile(
    r"|\s(?!\s*\(\d+\) ).*|Graph execution error:|Detected at node .*|<stack traces .*|\d+ root error.*"
)


def tidy() -> None:
    """Takes away what AutoGraph has written to the temporary folder for a function of TensorFlow's own.

    It rewrites the signatures of each SavedModel that is saved, and leaves its files to Python's own end,
    which a training process does without.
    """
    for name, module in list(sys.modules.items()):
        if name.startswith("__autograph_generated_file") and module.__file__:
            with contextlib.suppress(OSError):
                Path(module.__file__).unlink()


def words(error: Exception) -> str:
    """What went wrong in a graph, on one line and without where it was traced."""
    told = (line.strip() for line in str(error).splitlines() if not _PREAMBLE.fullmatch(line))
    return re.sub(r"^(\{\{\w+ .*?\}\} )+", "", next(told, first_line(error)))
