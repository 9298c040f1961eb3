"""How the trainer's Python becomes TensorFlow's graphs: as it is written.

Promises: nothing is rewritten by AutoGraph, so a process that ends at once leaves none of its files in the
temporary folder, and each start is most of a second shorter. In return, what is traced must not use a Python
condition or loop over tensors.
"""

from __future__ import annotations

import functools

import tensorflow as tf

traced = functools.partial(tf.function, autograph=False)
# For functions that build a `tf.data.Dataset`, whose every map would else go through AutoGraph.
as_written = tf.autograph.experimental.do_not_convert
