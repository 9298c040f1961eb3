"""Runs that meet in one model_dir, and workers that were not started alike: with real processes."""

import pytest

from canopy import cli
from tests.trainer.surviving import PATIENCE_SECONDS, Run, checkpoints, files, kill, wait_for
from trainer import cluster
from trainer.claim import claim_model_dir
from trainer.config import Config


@pytest.mark.slow
def test_a_run_that_another_displaces_ends_and_lends_it_no_checkpoint(records, tmp_path):
    flags = ("--epochs", 400, "--checkpoint_steps", 1)
    with (
        Run(records, tmp_path / "model", *flags) as first,
        Run(records, tmp_path / "model", *flags, "--seed", 1, "--restart") as second,
    ):
        displaced = first.locally(1)
        first.wait_for_step(8)
        second.locally(1)
        assert displaced.wait(PATIENCE_SECONDS) == cli.EXIT_USER
        first_log, second_log = (tmp_path / "model" / f"log-{i}" for i in range(2))
        assert "another run has taken" in first_log.read_text()
        wait_for(lambda: len(checkpoints(second)) == 2 and min(second.steps()[-2:]) > 5)
        assert "resuming" not in second_log.read_text()
        assert {2, 3, 4, 5} <= set(second.steps())
        kill(second, 0)
        wait_for(lambda: "resuming after step" in second_log.read_text())
        assert "damaged" not in second_log.read_text()


@pytest.mark.slow
def test_of_two_jobs_that_go_on_with_one_run_the_earlier_one_ends_and_the_later_one_goes_on(
    records, tmp_path
):
    flags = ("--epochs", 400, "--checkpoint_steps", 1)
    with (
        Run(records, tmp_path / "model", *flags) as first,
        Run(records, tmp_path / "model", *flags) as second,
    ):
        first.pods(1, CANOPY_RUN_ID="first")
        first.wait_for_step(8)
        second.pods(1, CANOPY_RUN_ID="second")
        assert first.ends() == [cli.EXIT_USER], first.told()
        assert "another run has taken" in (tmp_path / "model" / "log-0").read_text()
        reached = max(second.steps())
        second.wait_for_step(reached + 3)
        assert "resuming after step" in (tmp_path / "model" / "log-1").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("earlier", [False, True], ids=["first_run", "restart"])
def test_pods_that_were_started_with_different_settings_end_before_anything_is_done(
    records, tmp_path, earlier
):
    flags = ("--epochs", 2, "--restart")
    chiefs = Run(records, tmp_path / "model", *flags)
    others = Run(records, tmp_path / "model", *flags, "--seed", 1, "--image_size", 40, "--average_decay", 0.5)
    if earlier:
        claim_model_dir(Config(data="", model_dir=str(chiefs.model_dir)), "data", True, "earlier")
        (chiefs.model_dir / "export").mkdir()
        (chiefs.model_dir / "export" / "model.json").write_text("{}")
    before = files(chiefs.model_dir)
    addresses = ",".join(f"127.0.0.1:{port}" for port in cluster.free_ports(2))
    with chiefs, others:
        for index, run in enumerate((others, chiefs)):  # whatever comes first has nothing to compare with
            run.pod(1 - index, CANOPY_ADDRESSES=addresses, CANOPY_RUN_ID="job")
        assert others.ends() == chiefs.ends() == [cli.EXIT_USER], chiefs.told()
    said = [line for line in chiefs.told().splitlines() if line.startswith("error: ")]
    assert len(said) == 2
    assert "worker 0 and worker 1 were started with different settings or data" in said[0]
    for differing in ("--seed: 0 and 1", "--image_size: 32 and 40", "--average_decay: 0.0 and 0.5"):
        assert all(differing in line for line in said)
    assert {path: text for path, text in files(chiefs.model_dir).items() if "log-" not in path.name} == before
