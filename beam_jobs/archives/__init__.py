"""Zip and tar files, behind `beam_jobs.sources`.

`packing` says which can be read, `contents` finds what is in one and where, `unpacking` writes a plain copy
of a packed tar, `members` reads from there. `methods` unpacks what is in a zip, `headers` keeps a tar's own
within bounds, `zstd` unpacks what Python itself does not yet, `streams` is how both are read; `tables` reads
a CSV, packed or not.
"""
