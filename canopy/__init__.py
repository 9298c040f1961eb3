"""Canopy: from an archive of satellite JPEGs to a trained tagger and a submission.

This package is the hall between the rooms: what every command shares (exit codes, progress, the names
on which the rooms agree) and the demo that walks through all of them. It imports none of the rooms.
"""

__version__ = "0.1.0"
