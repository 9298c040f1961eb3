"""What becomes of an error that ends a worker."""

import os
import subprocess
import sys

from tests.conftest import ROOT

NCCL = "NCCL: remote process exited or there was a network error. Set NCCL_DEBUG=WARN for detail."
UNLIKE = (
    "Device /job:worker/replica:0/task:1/device:CPU:0 is joining a group with incompatible device type GPU"
)
SHARED = "NCCL: invalid usage (run with NCCL_DEBUG=WARN for details). Set NCCL_DEBUG=WARN for detail."
BEHIND = f"2 root error(s) found.\n  (0) INTERNAL:  aborted\n  (1) INTERNAL:  {NCCL}"
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
        raise tf.errors.InternalError(None, None, f"Graph execution error:\\n\\n{{said}}\\nThe error")
    start.train = train
    cluster = {{"worker": ["127.0.0.1:1"] * workers}}
    os.environ["TF_CONFIG"] = json.dumps({{"cluster": cluster, "task": {{"type": "worker", "index": 0}}}})
    try:
        return task.main(["--data", "d", "--model_dir", "m"])
    except tf.errors.InternalError:
        return "a bug"

print(end(2, 1, {NCCL!r}), end(2, 0, {NCCL!r}), end(1, 1, {NCCL!r}), end(2, 1, "no kernel"))
print(end(2, 0, {UNLIKE!r}), end(2, 1, {UNLIKE!r}), end(2, 1, {BEHIND!r}))
print(end(2, 0, {SHARED!r}), end(2, 1, {SHARED!r}))
os.environ["CANOPY_HAS_TRAINED"] = "true"
print(end(2, 0, {NCCL!r}))
"""


def test_what_tensorflow_says_of_other_workers_is_told_by_whether_they_have_computed_together():
    words = [sys.executable, "-c", ENDS]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout == "75 a bug a bug a bug\n2 75 75\n2 75\n75\n"
    assert f"peer lost: {NCCL}" in done.stderr
    assert f"the workers have unlike devices: give each as many GPUs, or none ({UNLIKE})" in done.stderr
    assert f"give each a GPU of its own, or take --communication ring ({SHARED})" in done.stderr
