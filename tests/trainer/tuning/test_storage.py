"""Where a study is kept: what is worth another try, and what is not."""

import errno
import os
from pathlib import Path

import pytest

from canopy.cli import TryAgainError, UserError
from trainer.tuning import sampling, storage


def open_study(place, tmp_path, terms=None):
    return storage.open_study(
        str(place),
        "canopy",
        terms=terms or {"--epochs": 3},
        output=tmp_path / "trials",
        sampler=sampling.SeededSampler(0),
        pruner=sampling.make_pruner("none", 3),
    )


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ESTALE, TryAgainError), (errno.EIO, TryAgainError), (errno.EACCES, UserError)]
)
def test_a_disk_that_fails_for_a_while_is_worth_another_try(number, kind, tmp_path, monkeypatch):
    path, opened = tmp_path / "study.log", Path.open

    def failing(self, *args, **kwargs):
        if self == path:
            raise OSError(number, os.strerror(number))
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(kind, match=rf"--study .*study\.log cannot be opened .*{os.strerror(number)}"):
        open_study(path, tmp_path)
