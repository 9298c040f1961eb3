"""What `trainer.model` and a training step are made of: the network's parts, and how each is trained.

`hub` loads backbones and `precision` says in which type they compute; `augmentation` and `losses` are what a
step begins and ends with; `adamw` moves the weights, and `averaging` keeps their mean.
"""
