"""What happens to a run when its workers are killed, frozen, stopped, or started again: with real processes.

Seconds from a fault to the next completed step are printed (`pytest -s`); the limits leave room for a machine
that has other things to do.
"""

import json
import os
import shutil
import signal
import time

import numpy as np
import pytest

from canopy import cli
from tests.trainer.surviving import (
    Network,
    Run,
    checkpoints,
    is_running,
    kill,
    wait_for,
)
from trainer import data_info, plan

LIMIT_SECONDS = 120.0  # on two idle cores it is 25

makes_networks = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ip"), reason="only root may make networks"
)


def repeated(run):
    """How many steps were taken more than once."""
    steps = run.steps()
    return len(steps) - len(set(steps))


def last_steps(run):
    return int(checkpoints(run)[-1].removeprefix("step-").removesuffix(".npz"))


def test_sigterm_saves_the_step_and_the_next_start_repeats_none(records, tmp_path):
    flags = ("--epochs", 60, "--checkpoint_steps", 1000)
    with Run(records, tmp_path / "model", *flags) as run:
        word = tmp_path / "word"
        launcher = run.locally(1, CANOPY_TERMINATION_LOG=str(word), CANOPY_READY_FILE=str(tmp_path / "ready"))
        run.wait_for_step(8)
        assert (tmp_path / "ready").exists()
        (child,) = run.workers()
        launcher.send_signal(signal.SIGTERM)
        assert run.ends() == [cli.EXIT_TERMINATED]
        assert not is_running(child)
        assert not (tmp_path / "ready").exists()
        assert word.read_text().startswith("stopped by SIGTERM: the newest checkpoint is of step")
        reached = max(run.steps())
        assert last_steps(run) == reached
        run.launchers.clear()
        run.locally(1)
        run.wait_for_step(reached + 3)
        assert repeated(run) == 0


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


@pytest.mark.slow
def test_a_finished_run_ends_at_once_also_for_one_pod_alone(records, tmp_path):
    with Run(records, tmp_path / "model", "--epochs", 1) as run:
        run.pods(2)
        assert run.ends() == [0, 0], run.told()
        described = (run.model_dir / "export" / "model.json").stat().st_mtime
        run.launchers.pop(0)
        run.pod(1)
        assert run.ends()[-1] == 0, run.told()
        run.locally(1)
        assert run.ends()[-1] == 0
        assert "complete already" in run.told()
        assert (run.model_dir / "export" / "model.json").stat().st_mtime == described


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_all_pods_and_keeps_the_last_good_checkpoint(records, tmp_path):
    flags = ("--epochs", 40, "--checkpoint_steps", 1, "--learning_rate", "1e30", "--warmup_share", 0.9)
    with Run(records, tmp_path / "model", *flags) as run:
        run.pods(2)
        assert run.ends() == [cli.EXIT_USER] * 2, run.told()
        assert "no number" in run.told() or "the loss is" in run.told()
        for name in checkpoints(run):
            with np.load(run.model_dir / "checkpoints" / name) as found:
                assert all(np.isfinite(found[key]).all() for key in found.files)


@pytest.mark.slow
def test_a_loss_that_is_no_number_before_the_first_checkpoint_leaves_the_folder_to_the_mended_run(
    records, tmp_path
):
    rate = ("--learning_rate", "1e30", "--warmup_share", 0)
    with Run(records, tmp_path / "model", "--epochs", 3, "--checkpoint_steps", 1000, *rate) as run:
        run.locally(2)
        assert run.ends() == [cli.EXIT_USER], run.told()
        assert not checkpoints(run)
    with Run(records, tmp_path / "model", "--epochs", 3) as mended:
        mended.locally(1)
        assert mended.ends() == [cli.EXIT_OK], mended.told()


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "first", "later", "cut_alike"), [(8, 2, 1, True), (10, 1, 2, False)])
def test_a_run_may_go_on_with_another_number_of_workers(records, tmp_path, batch, first, later, cut_alike):
    flags = ("--epochs", 60, "--checkpoint_steps", 1000, "--batch_size", batch)
    with Run(records, tmp_path / "model", *flags) as run:
        launcher = run.locally(first)
        run.wait_for_step(8)
        launcher.terminate()
        assert run.ends() == [cli.EXIT_TERMINATED]
        reached = max(run.steps())
        run.launchers.clear()
        run.locally(later)
        run.wait_for_step(reached + 3)
        assert repeated(run) == 0
        epochs = {line["step"]: line["epoch"] for line in run.lines()}
        goes_on_in_mid_epoch = epochs[reached] == epochs[reached + 1]
        warned = "this epoch was begun by a number of workers" in run.told()
        assert warned == (goes_on_in_mid_epoch and not cut_alike)


@pytest.mark.slow
def test_sigterm_before_the_first_step_ends_all_pods_in_time(records, tmp_path):
    with Run(records, tmp_path / "model", "--epochs", 2) as run:
        run.pods(2)
        wait_for(lambda: run.starts() == 1)
        for launcher in run.launchers:
            launcher.terminate()
        assert [launcher.wait(30) for launcher in run.launchers] == [cli.EXIT_TERMINATED] * 2


@pytest.mark.slow
def test_sigterm_to_a_pod_that_waits_for_the_others_ends_it(records, tmp_path):
    with Run(records, tmp_path / "model", "--epochs", 2) as run:
        run.pods(2)
        run.launchers[1].kill()
        wait_for(lambda: "meeting the 2 workers" in run.told())
        run.launchers[0].terminate()
        assert run.launchers[0].wait(30) == cli.EXIT_TERMINATED


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["validation", "export"])
def test_sigterm_after_the_last_step_loses_none_and_the_next_start_completes(records, tmp_path, phase):
    def has_come():
        return (
            run.steps() and run.steps()[-1] == steps if phase == "validation" else "exporting" in run.told()
        )

    train = data_info.read(str(records)).shards("train")
    steps = plan.steps_per_epoch(sum(shard.records for shard in train), streams=2, batch=4)
    with Run(records, tmp_path / "model", "--epochs", 1) as run:
        run.pods(2)
        wait_for(has_come)
        for launcher in run.launchers:
            launcher.terminate()
        assert [launcher.wait(30) for launcher in run.launchers] == [cli.EXIT_TERMINATED] * 2
        assert not (run.model_dir / "export").exists()
        assert last_steps(run) == max(run.steps()) == steps
        run.locally(2)
        assert run.ends()[-1] == 0, run.told()
        assert repeated(run) == 0
        assert (run.model_dir / "export" / "model.json").exists()
        lines = map(json.loads, (run.model_dir / "metrics.jsonl").read_text().splitlines())
        assert {line["step"] for line in lines if "validation" in line} == {steps}


@pytest.mark.slow
def test_restart_begins_anew_once_however_often_its_workers_are_started(trained, records, tmp_path):
    shutil.copytree(trained.model_dir, tmp_path / "model")
    (tmp_path / "model" / "metrics.jsonl").rename(tmp_path / "metrics.jsonl")
    flags = ("--epochs", 400, "--checkpoint_steps", 5, "--seed", 1, "--restart")
    with Run(records, tmp_path / "model", *flags) as run:
        run.locally(2)
        run.wait_for_step(8)
        assert run.steps()[0] == 1
        assert not (run.model_dir / "export").exists()
        assert "resuming" not in run.told()
        run.seconds_to_next_step(lambda: kill(run, 0))
        assert 1 <= repeated(run) <= 5
        assert "resuming after step" in run.told()
