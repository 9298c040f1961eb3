"""What the tests of evaluation share: a report of the small model on its validation split."""

import pytest

from canopy import cli
from trainer import evaluate


@pytest.fixture(scope="session")
def report(trained, records, tmp_path_factory):
    output = tmp_path_factory.mktemp("report")
    flags = ["--model", str(trained.export), "--data", str(records), "--output", str(output)]
    assert evaluate.main(flags) == cli.EXIT_OK
    return output
