"""The search behind `trainer.tune`: what its workers share, what they try, what they found.

`settings` reads the flags and `search` the space; `storage` opens what all workers share, `study` is that as
one of them sees it, `slots` counts how far it is; `sampling` draws trials and ends bad ones, `trial` runs
one, `report` says what was found.
"""
