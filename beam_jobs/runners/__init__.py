"""Where a job's work is done: by Beam's runners, and by plain processes beside the one on this machine.

`choosing` picks one, `running` follows a pipeline on it to its end; `elsewhere` and `dataflow` know those on
other machines, `workers` are Beam's processes on this one, which talk through `sockets`, `processes` plain
ones, which `early` lets work before Beam does.
"""
