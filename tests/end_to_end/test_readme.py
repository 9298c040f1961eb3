"""The README's commands as a newcomer would type them, one after the other."""

import csv
import shlex
import subprocess
import sys

import pytest

from tests.docs.test_documents import TEXTS, lines

STAGES = "## The stages"


def stage_commands():
    section = TEXTS["README.md"].split(STAGES)[1].split("\n## ")[0]
    return [shlex.split(line) for line in lines(section)]


@pytest.mark.slow
def test_the_stages_run_as_they_are_written_and_end_in_a_submission(tmp_path):
    commands = stage_commands()
    assert [words[2] for words in commands] == [
        *("canopy.sample", "beam_jobs.preprocess", "trainer.launch", "trainer.evaluate", "beam_jobs.predict")
    ]
    for words in commands:
        assert words[0] == "python"
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    made = tmp_path / "build" / "demo"
    assert (made / "report" / "report.html").is_file()
    sample, submission = (
        list(csv.DictReader(path.open(newline="")))
        for path in (made / "archive" / "sample_submission_v2.csv", made / "submission.csv")
    )
    assert [row["image_name"] for row in submission] == [row["image_name"] for row in sample]
    assert len({row["tags"] for row in submission}) > 10  # no model that always says the same
