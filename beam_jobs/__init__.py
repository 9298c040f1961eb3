"""Apache Beam's part of Canopy: an archive to records, and images to a submission.

Two commands, each with its settings and its graph: `preprocess` (`settings`) and `predict`
(`predict_settings`). None of the modules knows how training works.

- Where images come from: `listing`, which asks `finding` what a path means and looks into `archives`;
  `sources`, which reads them; `storage` for every file, behind it the object `stores`.
- A picture: `images`, any JPEG's bytes to RGB, with `markers` mended.
- Preprocessing: `prepare` joins names with `labels` and lets `plan` say which go to which shard; `work` is
  what a worker gets, `convert` what it does, `records` the bytes that it writes; `commit` makes the folder
  whole, `summary` says what is in it.
- Prediction: `targets` are the files that it writes; `scoring` takes images to scores, `submission` scores to
  rows.
- Both: `runners` are where work is done, `staging` is where it lies until it is whole.
"""

import os

# NumPy's wheels multiply large matrices, as resizing large pictures does, by a thread for every core, and
# these spin between two products; jobs have a thread or a process for every core already. NumPy reads this
# when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
