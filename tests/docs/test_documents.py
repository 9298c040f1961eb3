"""README, docs/ and the recipes: every command, flag, make target, file and link that they show exists."""

import argparse
import functools
import re
import shlex

import pytest

from tests.conftest import ROOT, run_module

DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
]
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in DOCUMENTS}
LAUNCHERS = ("trainer.launch", "trainer.tune")  # what stands behind their -- is trainer.task's


def lines(text):
    """Shell commands of indented blocks, continued lines joined."""
    return re.findall(r"^ {4}(\S[^\n]*)$", re.sub(r" *\\\n +", " ", text), re.MULTILINE)


def python_commands():
    return [
        pytest.param(shlex.split(line, comments=True), id=f"{name}-{number}")
        for name, text in TEXTS.items()
        for number, line in enumerate(lines(text))
        if line.startswith("python -m ")
    ]


@functools.cache
def flags_of(module):
    found = set(re.findall(r"--\w+", run_module(module, "--help").stdout))
    if module.startswith("beam_jobs."):
        import apache_beam.runners.dask.dask_runner  # noqa: F401 - defines options of its own
        from apache_beam.options.pipeline_options import PipelineOptions

        parser = argparse.ArgumentParser(conflict_handler="resolve")
        for kind in PipelineOptions.__subclasses__():
            kind._add_argparse_args(parser)
        found |= {flag for action in parser._actions for flag in action.option_strings}
    return found


def shown(words):
    return {word.split("=")[0] for word in words if re.match(r"--\w", word)}


@pytest.mark.parametrize("words", python_commands())
def test_each_flag_shown_is_one_that_the_command_has(words):
    module = words[2]
    end = words.index("--") if "--" in words and module in LAUNCHERS else len(words)
    # What another runner takes beyond Beam's own is not Beam's to know.
    assert shown(words[:end]) - {"--parallelism"} <= flags_of(module)
    if end < len(words):
        assert shown(words[end:]) <= flags_of("trainer.task")


def test_the_readme_shows_the_two_commands_and_every_stage():
    commands = lines(TEXTS["README.md"])
    assert commands[0].startswith("make demo")
    assert commands[1].startswith("make test")
    stages = ("beam_jobs.preprocess", "trainer.launch", "trainer.evaluate", "beam_jobs.predict")
    for module in (*stages, "infra.submit"):
        assert any(line.startswith(f"python -m {module} ") for line in commands), module
    assert "kubectl apply -f k8s/train-job.yaml" in commands


@pytest.mark.parametrize("name", TEXTS)
def test_each_make_target_shown_exists(name):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^    |`)make ([a-z][\w-]*)", TEXTS[name], re.MULTILINE)) <= targets


@pytest.mark.parametrize("name", TEXTS)
def test_each_file_shown_exists(name):
    rooms = "beam_jobs|trainer|canopy|tests|benchmarks|k8s|infra|docs"
    for path in re.findall(rf"(?<![\w/.])((?:{rooms})/[\w/.-]*\w)", TEXTS[name]):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", TEXTS)
def test_each_link_leads_somewhere(name):
    for target in re.findall(r"\]\(([^)]+)\)", TEXTS[name]):
        path, _, heading = target.partition("#")
        linked = (ROOT / name).parent / path if path else ROOT / name
        assert linked.exists(), target
        headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE) if heading else []
        assert not heading or heading in {each.lower().replace(" ", "-") for each in headings}, target


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_the_readme_leads_to_each_document(path):
    assert f"](docs/{path.name}" in TEXTS["README.md"]


@pytest.mark.parametrize("name", TEXTS)
def test_lines_are_as_long_as_elsewhere(name):
    prose = [line for line in TEXTS[name].splitlines() if not line.startswith(("|", "    "))]
    assert max(map(len, prose)) <= 130
