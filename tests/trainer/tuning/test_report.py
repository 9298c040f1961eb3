"""What a search ends with: its words, the command to paste, and plots, whoever else writes them."""

import shlex
from pathlib import Path

import matplotlib.figure
import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState, create_trial

from canopy.cli import UserError
from trainer import config
from trainer.tuning import report, sampling, search, settings

PLOTS = ["history.png", "importance.png"]


@pytest.fixture
def study():
    made = optuna.create_study(direction="maximize")
    made.optimize(lambda trial: trial.suggest_float("learning_rate", 1e-4, 1e-2), n_trials=4)
    return made


SPACE = search.Space.of({"learning_rate": "1e-4..1e-2:log", "loss": "bce,focal"})


def searched(*ends):
    """A study whose trials ended so: with an F2, pruned (None), or failed for a reason."""
    made = optuna.create_study(direction="maximize")
    for number, end in enumerate(ends):
        failed = isinstance(end, str)
        state = TrialState.FAIL if failed else TrialState.PRUNED if end is None else TrialState.COMPLETE
        made.add_trial(
            create_trial(
                state=state,
                value=None if failed else end,
                params={"loss": "focal", "learning_rate": 0.001 + number * 1.23456e-7},
                distributions=sampling.distributions(SPACE),
                user_attrs={"seconds": 12.3} | ({"why": end} if failed else {}),
            )
        )
    return made


def made_of(*flags):
    return settings.parse(["--data", "my data", "--study", "s.log", "--trials", "12", *flags])


def tell(made, output, halted=False):
    report.tell(made_of(), made, SPACE, made.trials, output=output, halted=halted)


@pytest.mark.parametrize(
    ("halted", "more"), [(False, "\n"), (True, "; the time is over, the same command goes on\n")]
)
def test_a_search_ends_with_its_best_trial_and_how_the_others_ended(halted, more, tmp_path, capsys):
    tell(searched(0.5, None, "exit code 1", 0.75, 0.75, None), tmp_path, halted=halted)
    told = capsys.readouterr().out
    assert f"\n6 of 12 trials: 3 complete, 2 pruned, 1 failed{more}" in told
    assert f"\ntrials: {tmp_path}\nplot: {tmp_path / PLOTS[0]}\n" in told
    assert f"\nbest: F2 0.7500, {tmp_path}/trial-0003/export\npython -m trainer.launch " in told
    assert "best trials" in told


def test_the_table_holds_the_ten_best_trials_the_first_of_equal_ones_before_the_others():
    f2s = [0.5, 0.0, None, *(0.9 - number / 100 for number in range(9)), 0.9]
    columns = {each.header: [*each.cells] for each in report.table(searched(*f2s).trials, SPACE).columns}
    assert columns["trial"] == ["3", "12", *map(str, range(4, 12))]
    assert columns["F2"][:3] == ["0.9000", "0.9000", "0.8900"]
    assert [columns[name][0] for name in ("seconds", "loss", "learning_rate")] == ["12", "focal", "0.001"]


def test_the_command_trains_with_the_best_trials_flags_and_can_be_pasted(tmp_path):
    best = searched(0.5, 0.75).best_trial
    flags = made_of("--local_workers", "2", "--", "--weights", "my file.h5")
    words = shlex.split(report.command(flags, best, SPACE, tmp_path))
    assert words[:6] == ["python", "-m", "trainer.launch", "--local_workers", "2", "--"]
    trained = config.parse(words[6:])
    assert (trained.data, trained.model_dir) == ("my data", str(tmp_path / "best"))
    assert (trained.weights, trained.loss, trained.learning_rate) == ("my file.h5", "focal", 0.001)


@pytest.mark.parametrize(
    ("ends", "said"),
    [((None, "exit code 1"), "exit code 1"), (("exit code 1", None), "pruned")],
)
def test_a_search_without_a_complete_trial_says_how_the_last_one_ended(ends, said, tmp_path):
    with pytest.raises(UserError, match=rf"no trial is complete \(2 of 12 trials: .*; the last one: {said}$"):
        tell(searched(*ends), tmp_path)


def test_a_search_whose_time_was_over_before_a_trial_was_complete_goes_on(tmp_path, capsys):
    tell(searched(None), tmp_path, halted=True)
    assert capsys.readouterr().out == (
        "1 of 12 trials: 0 complete, 1 pruned, 0 failed; no time was left for one: the same command goes on\n"
    )


def test_a_search_whose_time_ran_out_behind_its_last_trial_is_over(tmp_path, capsys):
    tell(searched(0.5, *[None] * 11), tmp_path, halted=True)
    assert "\n12 of 12 trials: 1 complete, 11 pruned, 0 failed\n" in capsys.readouterr().out
    with pytest.raises(UserError, match="no trial is complete"):
        tell(searched(*[None] * 12), tmp_path, halted=True)


@pytest.mark.filterwarnings("error")
def test_trials_too_few_to_tell_what_matters_are_no_reason_to_fail(tmp_path):
    nothing_searched = optuna.create_study(direction="maximize")
    nothing_searched.add_trial(create_trial(value=0.5))
    assert tmp_path / PLOTS[0] in report.plots(nothing_searched, tmp_path)
    assert set(names(tmp_path)) <= {*PLOTS}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_workers_that_end_at_once_write_the_same_plots(study, tmp_path, monkeypatch):
    save = matplotlib.figure.Figure.savefig
    others: list[list[Path]] = []

    def saved_while_another_comes(self, *args, **kwargs):
        save(self, *args, **kwargs)
        if not others:
            others.append([])
            others.append(report.plots(study, tmp_path))

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", saved_while_another_comes)
    made = report.plots(study, tmp_path)
    assert others[1] == made == [tmp_path / name for name in PLOTS]
    assert names(tmp_path) == PLOTS


def test_a_plot_that_cannot_be_written_is_told_and_left_out(study, tmp_path, capsys):
    (tmp_path / PLOTS[0]).mkdir()
    assert report.plots(study, tmp_path) == [tmp_path / PLOTS[1]]
    assert names(tmp_path) == PLOTS
    assert f"no plot: {tmp_path / PLOTS[0]} cannot be made" in capsys.readouterr().err


def test_a_study_that_is_lost_at_the_end_costs_the_plots_alone(tmp_path, capsys, monkeypatch):
    def lost(*_, **__):
        raise StorageInternalError("invalid data") from Exception("the server closed the connection")

    made = searched(0.5, 0.75)
    trials = made.trials
    monkeypatch.setattr(optuna.Study, "get_trials", lost)
    report.tell(made_of(), made, SPACE, trials, output=tmp_path, halted=False)
    told = capsys.readouterr()
    assert "best: F2 0.7500" in told.out
    assert told.err.count("cannot be made (the server closed the connection)") == len(PLOTS)
    assert names(tmp_path) == []
