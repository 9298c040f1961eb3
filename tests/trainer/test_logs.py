"""What a log's lines look like, for people and for clusters."""

import json
import logging

import pytest

from canopy import cli
from tests.conftest import SMALLEST
from trainer import logs


@pytest.mark.parametrize("text", ["resuming after step 3", 'a "quoted"\nbreak'])
def test_a_json_log_has_one_object_a_line(text):
    record = logging.LogRecord("canopy", logging.INFO, "", 0, "%s", (text,), None)
    line = logs.JsonLines(2).format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert (found["level"], found["worker"], found["message"]) == ("INFO", 2, text)
    assert set(found) == {"time", "level", "worker", "message"}


def test_each_line_says_whose_it_is_and_only_the_chief_tells_of_its_work(capsys):
    for index in (0, 1):
        logs.of_worker("text", index)
        logging.getLogger("canopy").info("step %d", index)
        logging.getLogger("canopy").warning("trouble")
    for is_pods in (False, True):
        logs.of_launcher("text", 1, is_pods)
        logging.getLogger("canopy.launch").info("restart")
    told = capsys.readouterr().err.splitlines()
    assert told[:3] == ["[worker 0] step 0", "[worker 0] trouble", "[worker 1] trouble"]
    assert told[3:] == ["launch: restart", "[worker 1] launch: restart"]


def test_in_a_json_log_the_progress_and_the_launcher_speak_json_too(records, command, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        f"from canopy import progress\nprogress.LINE_SECONDS = {0.0}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    flags = ("--data", records, "--model_dir", tmp_path / "model", *SMALLEST, "--log_format", "json")
    done = command("trainer.launch", "--local_workers", 1, "--", *flags)
    assert done.returncode == cli.EXIT_OK, done.stderr
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert any(line["message"].startswith("training: ") for line in told)
    assert {line["worker"] for line in told} == {0}


def test_in_a_json_log_what_libraries_write_is_json_too_and_a_mistake_is_plain(
    records, command, tmp_path, monkeypatch
):
    said = "E0000 words of a library"
    (tmp_path / "sitecustomize.py").write_text(
        f"import os, sys\nif 'trainer.task' in sys.orig_argv: os.write(2, b'\\n{said}\\n')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "run.json").write_text("{")
    flags = ("--data", records, "--model_dir", tmp_path, *SMALLEST, "--log_format", "json")
    done = command("trainer.launch", "--local_workers", 2, "--", *flags)
    assert done.returncode == cli.EXIT_USER
    *told, last = done.stderr.splitlines()
    assert last.startswith("error: ")
    found = [json.loads(line) for line in told]
    assert {line["worker"] for line in found if line["message"] == said} == {0, 1}
