"""Canopy's trainer: TFRecords in, an exported multi-label tagger out.

Knows the data only by its files, and nothing of Apache Beam or Kubernetes' API. Four commands: `launch`
(how workers start and start again), `task` (one worker), `evaluate` and `tune`; and `weights`, which fetches
those that a run begins with. Behind them are `launching`, `training`, `report` and `tuning`.

- Settings: `config` of a run, whose fields are its `flags`.
- Data: `data_info` is what a folder says of itself and of each `shard`, `integrity` whether they are as it
  says; `plan` gives every worker its records, `dataset` makes batches of them and `decoding` pictures of
  their bytes, `faults` names the record that stopped one.
- The network: `model`, its parts in `network`; `devices` train it.
- A run's folder: `model_dir` knows what is in it and `claim` whose it is; `checkpoints`, `journal` and
  `export` write it, by `files`, once `outputs` has found that it can be written.
- The score: `metrics`, and `validation`, which says all that is said of scores.
- Workers: `cluster` says who they are; a launcher and its process talk by `link`, and `halt` at a signal.
- Small things that many need: `local` variables, `tracing`, `logs`, and `mend`, a JPEG mended in a graph.
"""
