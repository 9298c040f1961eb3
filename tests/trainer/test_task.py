"""What becomes of an error that ends a worker."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

NCCL = "NCCL: remote process exited or there was a network error. Set NCCL_DEBUG=WARN for detail."
UNLIKE = (
    "Device /job:worker/replica:0/task:1/device:CPU:0 is joining a group with incompatible device type GPU"
)
SHARED = "NCCL: invalid usage (run with NCCL_DEBUG=WARN for details). Set NCCL_DEBUG=WARN for detail."
BEHIND = f"2 root error(s) found.\n  (0) INTERNAL:  aborted\n  (1) INTERNAL:  {NCCL}"
FULL = "Failed copying input tensor from CPU:0 to GPU:0 in order to run Cast: Dst tensor is not initialized."
BROKEN = "CUDA_ERROR_ECC_UNCORRECTABLE: uncorrectable ECC error encountered"
UNFIT = "No DNN support for stream."
ENDS = f"""
import json, os, sys
from canopy import quiet
with quiet.importing():
    import tensorflow as tf
    from trainer import task
    from trainer.training import start

def end(workers, steps, said, kind="InternalError"):
    def train(config, place, stopping):
        for step in range(steps):
            stopping.stepped(step)
        raise getattr(tf.errors, kind)(None, None, f"Graph execution error:\\n\\n{{said}}\\nThe error")
    start.train = train
    cluster = {{"worker": ["127.0.0.1:1"] * workers}}
    os.environ["TF_CONFIG"] = json.dumps({{"cluster": cluster, "task": {{"type": "worker", "index": 0}}}})
    try:
        return task.main(["--data", "d", "--model_dir", "m"])
    except tf.errors.OpError:
        return "a bug"

print(end(2, 1, {NCCL!r}), end(2, 0, {NCCL!r}), end(1, 1, {NCCL!r}), end(2, 1, "no kernel"))
print(end(2, 0, {UNLIKE!r}), end(2, 1, {UNLIKE!r}), end(2, 1, {BEHIND!r}))
print(end(2, 0, {SHARED!r}), end(2, 1, {SHARED!r}))
print(*(end(workers, steps, {FULL!r}) for workers in (1, 2) for steps in (0, 1)))
print(*(end(workers, steps, {BROKEN!r}) for workers in (1, 2) for steps in (0, 1)))
print(*(end(1, steps, {UNFIT!r}, "UnimplementedError") for steps in (0, 1)))
print(end(1, 1, "no kernel", "UnimplementedError"))
os.environ["CANOPY_HAS_TRAINED"] = "true"
print(end(2, 0, {NCCL!r}), end(1, 0, {UNFIT!r}))
"""


@pytest.fixture(scope="module")
def ended() -> "subprocess.CompletedProcess[str]":
    words = [sys.executable, "-c", ENDS]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ})


def test_what_tensorflow_says_of_other_workers_is_told_by_whether_they_have_computed_together(ended):
    codes = ended.stdout.splitlines()
    assert codes[:3] == ["75 a bug a bug a bug", "2 75 75", "2 75"]
    assert codes[-1].startswith("75 ")
    assert f"peer lost: {NCCL}" in ended.stderr
    assert f"the workers have unlike devices: give each as many GPUs, or none ({UNLIKE})" in ended.stderr
    assert f"give each a GPU of its own, or take --communication ring ({SHARED})" in ended.stderr


def test_a_gpu_without_room_is_told_as_that_whatever_tensorflow_calls_it(ended):
    assert ended.stdout.splitlines()[3] == "2 2 2 2"
    assert f"take a smaller --batch_size or --image_size, or more workers ({FULL})" in ended.stderr


def test_a_gpu_that_fails_is_worth_another_try(ended):
    assert ended.stdout.splitlines()[4] == "75 75 75 75"
    assert f"out of reach for now: a GPU has failed, or another process has it to itself ({BROKEN})" in (
        ended.stderr
    )


def test_libraries_that_do_not_work_are_a_mistake_until_they_have_worked(ended):
    assert ended.stdout.splitlines()[5] == "2 75"
    assert ended.stdout.splitlines()[-1].endswith(" 75")
    assert "cuDNN or cuBLAS does not work here: it does not fit the driver or the GPU" in ended.stderr


def test_what_is_said_of_no_gpu_stays_a_bug(ended):
    assert ended.stdout.splitlines()[6] == "a bug"
