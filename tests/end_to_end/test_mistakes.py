"""Every command, given the mistakes that people make: exit code 2, one sentence that names the flag or file.

What each command refuses in particular is tested beside it; here all commands meet the same mistakes.
"""

from __future__ import annotations

import importlib
import shlex
import time
from pathlib import Path

import pytest

from canopy import cli
from tests.beam_jobs.gcs_server import serving
from tests.beam_jobs.predicting import model as model
from tests.conftest import run_module

# What makes each command whole: a mistake below replaces a flag, takes it away (-) or adds one.
WHOLE = {
    "canopy.sample": "--output out --labelled 40",
    "beam_jobs.preprocess": "--images chips --labels labels.csv --output out",
    "beam_jobs.predict": "--model {model} --images chips --output out/submission.csv",
    "trainer.launch": "--local_workers 1 -- --data {records} --model_dir out --weights none --image_size 32",
    "trainer.task": "--data {records} --model_dir out --weights none --image_size 32",
    "trainer.evaluate": "--model {model} --data {records} --output out",
    "trainer.tune": "--data {records} --study out/study.log -- --weights none --image_size 32",
}

# The change, and what the sentence has to name.
MISTAKES = {
    "canopy.sample": [
        ("--output file", "file"),
        ("--output file/below", "file/below"),
        ("--output chips", "chips"),
        ("--labelled many", "--labelled"),
        ("--labelled -1", "--labelled"),
        ("--size 0", "--size"),
        ("--output -", "--output"),
        ("--output ''", "--output"),
        ("--output gs://there-is-none/archive", "gs://there-is-none/archive"),
    ],
    "beam_jobs.preprocess": [
        ("--images -", "--images"),
        ("--labels -", "--labels"),
        ("--output -", "--output"),
        ("--images nowhere", "nowhere"),
        ("--images empty", "empty"),
        ("--images gs://there-is-none/chips", "gs://there-is-none/chips"),
        ("--labels nowhere.csv", "nowhere.csv"),
        ("--labels chips", "chips"),
        ("--labels empty.csv", "empty.csv"),
        ("--labels header.csv", "header.csv"),
        ("--labels swapped.csv", "swapped.csv"),
        ("--labels gs://there-is-none/labels.csv", "gs://there-is-none/labels.csv"),
        ("--output file", "file"),
        ("--output file/below", "file/below"),
        ("--output gs://there-is-none/out", "gs://there-is-none/out"),
    ],
    "beam_jobs.predict": [
        ("--model -", "--model"),
        ("--images -", "--images"),
        ("--output -", "--output"),
        ("--model nowhere", "nowhere"),
        ("--model file", "file"),
        ("--model empty", "empty"),
        ("--model gs://there-is-none/export", "gs://there-is-none/export"),
        ("--images nowhere", "nowhere"),
        ("--images empty", "empty"),
        ("--images gs://there-is-none/chips", "gs://there-is-none/chips"),
        ("--sample_submission nowhere.csv", "nowhere.csv"),
        ("--sample_submission empty.csv", "empty.csv"),
        ("--sample_submission header.csv", "header.csv"),
        ("--output chips", "chips"),
        ("--output file/below.csv", "file/below.csv"),
        ("--output gs://there-is-none/submission.csv", "gs://there-is-none/submission.csv"),
    ],
    "trainer.launch": [
        ("--data -", "--data"),
        ("--model_dir -", "--model_dir"),
        ("--data nowhere", "nowhere"),
        ("--data file", "file"),
        ("--data chips", "chips"),
        ("--weights nowhere.h5", "nowhere.h5"),
        ("--weights chips", "chips"),
        ("--epochs none", "--epochs"),
        ("--local_workers many", "--local_workers"),
    ],
    "trainer.task": [
        ("--data -", "--data"),
        ("--model_dir -", "--model_dir"),
        ("--data nowhere", "nowhere"),
        ("--data file", "file"),
        ("--weights nowhere.h5", "nowhere.h5"),
        ("--weights file", "file"),
        ("--model_dir file", "file"),
        ("--init_from nowhere", "nowhere"),
        ("--learning_rate 0", "--learning_rate"),
    ],
    "trainer.evaluate": [
        ("--model -", "--model"),
        ("--data -", "--data"),
        ("--model ''", "--model is empty"),
        ("--data ''", "--data is empty"),
        ("--output -", "--output"),
        ("--model nowhere", "nowhere"),
        ("--model file", "file"),
        ("--model empty", "empty"),
        ("--output file", "file"),
        ("--data nowhere", "nowhere"),
        ("--data file", "file"),
        ("--data {model}", "{model}"),
        ("--split test", "'test'"),
    ],
    "trainer.tune": [
        ("--data -", "--data"),
        ("--study -", "--study"),
        ("--data nowhere", "nowhere"),
        ("--data file", "file"),
        ("--study chips", "chips"),
        ("--study labels.csv", "labels.csv"),
        ("--study file/study.log", "file"),
        ("--study gs://there-is-none/study.log", "gs://there-is-none/study.log"),
        ("--study sqlite:///file/study.db --output out", "sqlite:///file/study.db"),
        ("--output file", "file"),
        ("--trials none", "--trials"),
        ("--weights nowhere.h5", "nowhere.h5"),
    ],
}
CASES = [(module, change, named) for module, cases in MISTAKES.items() for change, named in cases]
SECONDS = 30.0  # of which TensorFlow's import, once, is most


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what is mistaken for something else."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "chips").mkdir()
    (folder / "empty").mkdir()
    (folder / "chips" / "chip_0.jpg").write_bytes(b"no jpeg")
    (folder / "file").write_text("x")
    (folder / "labels.csv").write_text("image_name,tags\nchip_0,clear\n")
    (folder / "empty.csv").write_text("")
    (folder / "header.csv").write_text("image_name,tags\n")
    (folder / "swapped.csv").write_text("chip_0,clear primary\nchip_1,clear\n")
    return folder


@pytest.fixture(scope="module", autouse=True)
def no_store(tmp_path_factory: pytest.TempPathFactory):
    """A server of Google Cloud Storage's protocol that has no bucket of the name."""
    with serving(tmp_path_factory.mktemp("store"), "here") as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        yield


def changed(whole: list[str], change: list[str]) -> list[str]:
    """A command line with a flag replaced, added, or (with the value -) taken away."""
    words = list(whole)
    for flag, value in zip(change[::2], change[1::2], strict=True):
        if flag in words:
            at = words.index(flag)
            words[at : at + 2] = [] if value == "-" else [flag, value]
        elif "--" in words and flag in ("--epochs", "--weights"):
            words += [flag, value]
        else:
            words[:0] = [flag, value]
    return words


@pytest.mark.parametrize(("module", "change", "named"), CASES)
def test_a_mistake_is_one_sentence_that_names_it_and_comes_soon(
    module, change, named, place, model, records, monkeypatch, capfd
):
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    paths = {"model": model, "records": records}
    words = changed(shlex.split(WHOLE[module].format(**paths)), shlex.split(change.format(**paths)))
    command = importlib.import_module(module + (".__main__" if module == "canopy.sample" else ""))
    capfd.readouterr()
    since = time.monotonic()
    code = command.main(words)
    said = capfd.readouterr()
    assert code == cli.EXIT_USER, said.err
    told = [line for line in said.err.splitlines() if not line.startswith("[worker ")]
    assert len(told) == 1, said.err
    assert told[0].startswith("error: ")
    assert named.format(**paths) in told[0]
    assert said.out == ""
    assert time.monotonic() - since < SECONDS
    made = set(place.rglob("*")) - set(before)
    assert {path.name for path in made} <= {"out"}, made


@pytest.mark.parametrize("module", WHOLE)
def test_a_command_says_no_more_when_it_is_a_process_of_its_own(module):
    done = run_module(module, "--no_such_flag", "1", timeout=60)
    assert done.returncode == cli.EXIT_USER
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "--no_such_flag" in done.stderr or "required" in done.stderr
