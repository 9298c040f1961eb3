"""The README's commands: each exists, with each flag that is shown."""

import re
import shlex

import pytest

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def commands():
    """The shell commands of indented blocks, continued lines joined."""
    blocks = re.sub(r" *\\\n +", " ", README)
    found = re.findall(r"^    ((?:python -m|make) [^\n]+)$", blocks, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in found]


def test_the_readme_shows_commands():
    shown = [words[:3] for words in commands()]
    assert ["make", "demo"] in shown
    assert ["make", "test"] in shown
    for module in ("beam_jobs.preprocess", "trainer.launch", "trainer.evaluate", "beam_jobs.predict"):
        assert ["python", "-m", module] in shown


@pytest.mark.parametrize("module", sorted({words[2] for words in commands() if words[0] == "python"}))
def test_each_flag_shown_is_one_that_the_command_has(module, command):
    help_text = command(module, "--help").stdout
    task_help = command("trainer.task", "--help").stdout if module == "trainer.launch" else ""
    for words in commands():
        if words[0] == "python" and words[2] == module:
            own, task = (
                (words[: words.index("--")], words[words.index("--") :]) if "--" in words else (words, [])
            )
            for text, given in ((help_text, own), (task_help, task)):
                for flag in (word.split("=")[0] for word in given if re.match(r"--\w", word)):
                    assert flag in text or module.startswith("beam_jobs"), f"{module} has no {flag}"


def test_each_make_target_shown_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in re.findall(r"(?:^    |`)make ([\w-]+)", README, re.MULTILINE):
        assert name in targets


def test_each_file_and_folder_named_exists():
    for name in re.findall(r"`((?:beam_jobs|trainer|canopy|tests|benchmarks|k8s|infra)/[\w/.-]*)`", README):
        assert (ROOT / name).exists(), name
