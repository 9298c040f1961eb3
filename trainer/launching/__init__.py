"""What keeps a run's workers going, behind `trainer.launch`: nothing here imports TensorFlow.

Launchers meet by `rendezvous`, which speak by `wire`; `supervise` is one attempt, from starting training
processes (`worker`: one of them) to the last one's end, while `watch` looks whether the others are there.
"""
