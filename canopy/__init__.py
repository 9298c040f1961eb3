"""Canopy: from an archive of satellite JPEGs to a trained tagger and a submission.

This package is the hall between the rooms: what every command shares (exit codes, progress, the names
on which the rooms agree) and the demo that walks through all of them. It imports none of the rooms.

- How commands behave: `cli` (sentences and exit codes), `phrases` within sentences, `progress`, `quiet`
  imports, `interrupts`, `children` that end with their parent, `locks`, a user's `own` folder, what a
  `shared_disk` tells late, and which of a file system's errors are `transient`.
- What rooms agree on: `contract`, the names of files and keys, `tfrecord`, how records are framed,
  `model_info`, an export's description, and `tables`, CSV that every reader takes.
- The machine: `machine` says what it has; `cuda` and `patterns` see to two ways of TensorFlow's.
- `sample` draws an archive, `demo` takes it through every stage.
"""

__version__ = "0.1.0"
