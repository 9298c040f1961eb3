"""Training itself, behind `trainer.task`: from a run's settings to an exported model, on every worker.

`start` makes a run ready and `loop` trains it; `steps` is what all replicas compute together, on what
`feeding` brings them, `results` what is looked at of it, `pace` and `profiling` how fast it goes. Workers ask
each other by `gathering`, find by `alike` whether they were started alike, and stop by `stopping`.
"""
