"""What happens to a run when its workers are killed, frozen, cut off or preempted: with real processes.

Seconds from a fault to the next completed step are printed (`pytest -s`); the limits leave room for a machine
that has other things to do.
"""

import os
import shutil
import signal
import time

import numpy as np
import pytest

from canopy import cli
from tests.trainer.surviving import Network, Run, checkpoints, kill, repeated, wait_for

LIMIT_SECONDS = 120.0  # on two idle cores it is 25

makes_networks = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ip"), reason="only root may make networks"
)

LATE = """
import json, os, sys, threading, time

def delay():
    while not hasattr(sys.modules.get("trainer.devices"), "strategy"):
        time.sleep(0.01)
    devices, place = sys.modules["trainer.devices"], json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    whole = devices.strategy
    devices.strategy = lambda *given: (time.sleep(45 * place), whole(*given))[1]

if "trainer.task" in " ".join(sys.orig_argv):
    threading.Thread(target=delay, daemon=True).start()
"""


@pytest.mark.slow
def test_who_has_joined_waits_for_a_worker_whose_devices_take_their_time(records, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(LATE)  # the second worker's strategy takes 45 s
    with Run(records, tmp_path / "model", "--epochs", 1) as run:
        run.locally(2, PYTHONPATH=str(tmp_path))
        assert run.ends() == [cli.EXIT_OK]
        assert "restart" not in run.told()


@pytest.mark.slow
@pytest.mark.parametrize("worker", [0, 1], ids=["the_chief", "another_worker"])
def test_a_killed_worker_costs_seconds_and_not_the_run(records, tmp_path, worker):
    with Run(records, tmp_path / "model", "--epochs", 400, "--checkpoint_steps", 5) as run:
        launcher = run.locally(2)
        run.wait_for_step(8)
        before = max(run.steps())
        assert run.seconds_to_next_step(lambda: kill(run, 0, worker)) < LIMIT_SECONDS
        run.wait_for_step(before + 5)
        assert repeated(run) <= 5
        assert launcher.poll() is None
        assert "restart 1 of" in run.told()


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1], ids=["the_chiefs", "another"])
def test_a_killed_pod_is_met_again(records, tmp_path, index):
    def replace():
        run.launchers[index].kill()
        run.launchers[index].wait()
        run.pod(index)

    with Run(records, tmp_path / "model", "--epochs", 400, "--checkpoint_steps", 5) as run:
        run.pods(2)
        run.wait_for_step(8)
        survivor = run.launchers[1 - index]
        assert run.seconds_to_next_step(replace) < LIMIT_SECONDS
        assert repeated(run) <= 5
        assert survivor.poll() is None


@pytest.mark.slow
def test_one_preempted_pod_saves_with_all_and_the_others_wait_for_its_replacement(records, tmp_path):
    def preempt():
        run.launchers[1].terminate()
        assert run.launchers[1].wait(30) == cli.EXIT_TERMINATED
        run.pod(1)

    with Run(records, tmp_path / "model", "--epochs", 400, "--checkpoint_steps", 1000) as run:
        run.pods(2)
        run.wait_for_step(8)
        run.seconds_to_next_step(preempt)
        assert repeated(run) == 0
        for launcher in run.launchers:
            launcher.terminate()
        assert run.ends() == [cli.EXIT_TERMINATED] * 2


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, True], ids=["the_process", "the_pod"])
def test_a_frozen_worker_is_noticed_and_replaced(records, tmp_path, whole):
    def freeze():
        pids = [*run.workers(1), *([run.launchers[1].pid] if whole else [])]
        began = time.monotonic()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: "restart 1 of" in run.told(), 60)
        print(f"{time.monotonic() - began:.1f} s until it was noticed")
        if whole:
            run.launchers[1].kill()
            run.launchers[1].wait()
            run.pod(1)

    with Run(records, tmp_path / "model", "--epochs", 400, "--checkpoint_steps", 5) as run:
        run.pods(2)
        run.wait_for_step(8)
        run.seconds_to_next_step(freeze)
        assert repeated(run) <= 5


@pytest.mark.slow
@makes_networks
def test_a_worker_cut_off_the_network_is_noticed_and_met_again(records, tmp_path):
    def cut_and_mend():
        began = time.monotonic()
        network.cut(1)
        wait_for(lambda: run.told().count("restart 1 of") == 2)
        print(f"{time.monotonic() - began:.1f} s until both sides had noticed")
        network.mend(1)

    flags = ("--epochs", 400, "--checkpoint_steps", 5)
    with Network(2) as network, Run(records, tmp_path / "model", *flags) as run:
        run.pods_on(network)
        run.wait_for_step(8)
        run.seconds_to_next_step(cut_and_mend)
        assert repeated(run) <= 5


@pytest.mark.slow
@makes_networks
@pytest.mark.parametrize("index", [0, 1], ids=["the_chief", "another_worker"])
def test_a_pod_that_comes_back_elsewhere_is_met_before_name_servers_know(records, tmp_path, index):
    """Name servers give the old address, at which nobody is any more: they keep answers for a while."""

    def lose_the_machine():
        network.cut(index)
        run.launchers[index].kill()
        run.launchers[index].wait()
        run.pod_elsewhere(index, network, machine=2)

    flags = ("--epochs", 400, "--checkpoint_steps", 5)
    with Network(3) as network, Run(records, tmp_path / "model", *flags) as run:
        run.pods_on(network)
        run.wait_for_step(8)
        run.seconds_to_next_step(lose_the_machine)
        assert repeated(run) <= 5
        assert run.told().count("restart 1 of") == 1


@pytest.mark.slow
def test_a_chief_killed_while_it_saves_costs_that_checkpoint_alone(records, tmp_path):
    partial = tmp_path / "model" / "checkpoints" / "partial"

    def kill_while_it_saves():
        (chief, _) = run.workers()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if partial.exists():
                os.kill(chief, signal.SIGSTOP)
                if partial.exists():  # and nobody renames it any more
                    os.kill(chief, signal.SIGKILL)
                    return
                os.kill(chief, signal.SIGCONT)
        raise AssertionError("it was never seen to save")

    with Run(records, tmp_path / "model", "--epochs", 400, "--checkpoint_steps", 3, "--alpha", 1.0) as run:
        run.locally(2)
        run.wait_for_step(7)
        run.seconds_to_next_step(kill_while_it_saves)
        assert 1 <= repeated(run) <= 3
        assert "damaged" not in run.told()


@pytest.mark.slow
def test_a_killed_and_resumed_run_ends_with_the_weights_of_an_undisturbed_one(records, tmp_path):
    flags = ("--epochs", 3, "--checkpoint_steps", 4, "--average_decay", 0.9)
    weights = []
    for name in ("undisturbed", "killed"):
        with Run(records, tmp_path / name, *flags) as run:
            run.locally(1)
            if name == "killed":
                run.wait_for_step(9)  # in the second epoch, past the checkpoint of step 8
                kill(run, 0)
            assert run.ends() == [0], run.told()
            assert sorted(set(run.steps())) == list(range(1, max(run.steps()) + 1))
            with np.load(tmp_path / name / "checkpoints" / checkpoints(run)[-1]) as found:
                weights.append({key: found[key] for key in found.files if key != "run"})
    assert weights[0].keys() == weights[1].keys()
    for key, value in weights[0].items():
        np.testing.assert_allclose(weights[1][key], value, rtol=0, atol=1e-5, err_msg=key)
