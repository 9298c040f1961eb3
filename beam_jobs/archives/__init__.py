"""Zip and tar files read in place, behind `beam_jobs.sources`.

`packing` says which can be, `contents` finds what is in one and where, `members` reads it from there.
"""
