"""What tests of the trainer share: a report of the small model, the log, and a folder closed to them."""

import errno
import logging
from pathlib import Path

import pytest

from canopy import cli
from trainer import evaluate


@pytest.fixture(scope="session")
def report(trained, records, tmp_path_factory):
    output = tmp_path_factory.mktemp("report")
    flags = ["--model", str(trained.export), "--data", str(records), "--output", str(output)]
    assert evaluate.main(flags) == cli.EXIT_OK
    return output


@pytest.fixture
def logged(caplog):
    """What the trainer warns of, also after a test that has sent its log elsewhere."""
    logging.getLogger("canopy").propagate = True
    caplog.set_level("WARNING", logger="canopy")
    return caplog


@pytest.fixture
def locked(tmp_path, monkeypatch):
    """A folder into which nobody may look, root least of all."""
    folder, stat = tmp_path / "locked", Path.stat
    folder.mkdir()

    def refuses(path, **options):
        if folder in path.parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refuses)
    return folder
