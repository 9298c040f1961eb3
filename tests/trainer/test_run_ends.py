"""How runs end, by themselves or by a signal, and how a later start goes on: with real processes."""

import json
import os
import shutil
import signal

import numpy as np
import pytest

from canopy import cli
from tests.trainer.surviving import Run, checkpoints, is_running, kill, last_saved, repeated, wait_for
from trainer import data_info, plan


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
        assert last_saved(run) == reached
        run.launchers.clear()
        run.locally(1)
        run.wait_for_step(reached + 3)
        assert repeated(run) == 0


def test_ctrl_c_saves_the_step_and_a_second_one_is_offered(records, tmp_path):
    with Run(records, tmp_path / "model", "--epochs", 60, "--checkpoint_steps", 1000) as run:
        launcher = run.locally(2)
        run.wait_for_step(8)
        for pid in (launcher.pid, *run.workers()):  # as a terminal does
            os.kill(pid, signal.SIGINT)
        assert run.ends() == [cli.EXIT_INTERRUPTED], run.told()
        reached = max(run.steps())
        assert last_saved(run) == reached
        assert "Ctrl-C again ends it at once" in run.told()
        assert f"stopped by SIGINT: the newest checkpoint is of step {reached}\n" in run.told()


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
        assert "the loss is" in run.told()
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
        assert last_saved(run) == max(run.steps()) == steps
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
