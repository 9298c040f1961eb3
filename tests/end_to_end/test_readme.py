"""The README's commands: each exists, with each flag that is shown."""

import argparse
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


def beam_flags():
    """Every option of Apache Beam, which its commands take beside their own."""
    from apache_beam.options.pipeline_options import PipelineOptions

    parser = argparse.ArgumentParser(conflict_handler="resolve")
    for kind in PipelineOptions.__subclasses__():
        kind._add_argparse_args(parser)
    return {flag for action in parser._actions for flag in action.option_strings}


@pytest.mark.parametrize("module", sorted({words[2] for words in commands() if words[0] == "python"}))
def test_each_flag_shown_is_one_that_the_command_has(module, command):
    def flags_of(name):
        return set(re.findall(r"--\w+", command(name, "--help").stdout))

    own = flags_of(module) | (beam_flags() if module.startswith("beam_jobs") else set())
    task = flags_of("trainer.task") if module in {"trainer.launch", "trainer.tune"} else set()
    for words in commands():
        if words[0] == "python" and words[2] == module:
            at = words.index("--") if "--" in words else len(words)
            for known, given in ((own, words[:at]), (task, words[at + 1 :])):
                shown = {word.split("=")[0] for word in given if word.startswith("--")}
                assert shown <= known, f"{module} has no {', '.join(sorted(shown - known))}"


def test_each_make_target_shown_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in re.findall(r"(?:^    |`)make ([\w-]+)", README, re.MULTILINE):
        assert name in targets


def test_each_file_and_folder_named_exists():
    for name in re.findall(r"`((?:beam_jobs|trainer|canopy|tests|benchmarks|k8s|infra)/[\w/.-]*)`", README):
        assert (ROOT / name).exists(), name
