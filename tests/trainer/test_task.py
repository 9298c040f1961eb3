"""What becomes of an error that ends a worker."""

import os
import subprocess
import sys

from tests.conftest import ROOT

NCCL = "NCCL: remote process exited or there was a network error. Set NCCL_DEBUG=WARN for detail."
ENDS = f"""
import json, os, sys
from canopy import quiet
with quiet.importing():
    import tensorflow as tf
    from trainer import task
    from trainer.training import start

def end(workers, steps, said):
    def train(config, place, stopping):
        for step in range(steps):
            stopping.stepped(step)
        raise tf.errors.InternalError(None, None, said)
    start.train = train
    cluster = {{"worker": ["127.0.0.1:1"] * workers}}
    os.environ["TF_CONFIG"] = json.dumps({{"cluster": cluster, "task": {{"type": "worker", "index": 0}}}})
    try:
        return task.main(["--data", "d", "--model_dir", "m"])
    except tf.errors.InternalError:
        return "a bug"

print(end(2, 1, {NCCL!r}), end(2, 0, {NCCL!r}), end(1, 1, {NCCL!r}), end(2, 1, "no kernel"))
os.environ["CANOPY_HAS_TRAINED"] = "true"
print(end(2, 0, {NCCL!r}))
"""


def test_what_nccl_meets_once_workers_have_computed_together_is_a_lost_peer():
    words = [sys.executable, "-c", ENDS]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout == "75 a bug a bug a bug\n75\n"
    assert f"peer lost: {NCCL}" in done.stderr
