"""What a search leaves behind: its plots, whoever else writes them and whatever is in their way."""

from pathlib import Path

import matplotlib.figure
import optuna
import pytest

from trainer.tuning import report

PLOTS = ["history.png", "importance.png"]


@pytest.fixture
def study():
    made = optuna.create_study(direction="maximize")
    made.optimize(lambda trial: trial.suggest_float("learning_rate", 1e-4, 1e-2), n_trials=4)
    return made


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
    assert f"no plot: {tmp_path / PLOTS[0]} cannot be written" in capsys.readouterr().err
