"""The demo: every stage in turn, and how it ends where one fails or the user has enough."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest

from canopy import machine, tables
from canopy.demo import __main__ as demo
from canopy.demo.layout import Archive, check_submission, read_column
from canopy.sample import SampleSettings, write_archive
from canopy.sample.tags import TAGS
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A small archive without images to predict."""
    folder = tmp_path_factory.mktemp("data") / "tiny"
    write_archive(
        folder, SampleSettings(seed=2, labelled=60, unlabelled=1, size=64, odd=0, broken=0, workers=1)
    )
    (folder / "test-jpg" / "test_0.jpg").unlink()
    (folder / "test-jpg").rmdir()
    return folder


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """Writes a stage of a few lines, the module `a_stage`: `stage("import sys; sys.exit(1)")`."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return (folder / "a_stage.py").write_text


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--data", "nowhere"], "nowhere is no folder"),
        (["--weights", "nowhere.h5"], "--weights nowhere.h5: there is no such file"),
        (["--epochs", "0"], "--epochs 0 is not at least 1"),
        (["--image_size", "-1"], "--image_size -1 is not at least 1"),
        (["--epoch", "3"], "--epoch"),
    ],
)
def test_a_mistake_is_told_before_the_first_stage(flags, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert demo.main(flags) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_exist_ends_a_real_process_with_2(command):
    done = command("canopy.demo", "--data", "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert "nowhere is no folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failing_stage_ends_the_demo_with_its_exit_code_and_nothing_after_it_runs(tiny, tmp_path, capfd):
    (tmp_path / "tfrecords").mkdir()
    (tmp_path / "tfrecords" / "dataset_info.json").write_text("{}")  # somebody else's: not to be replaced
    assert demo.main(["--data", str(tiny), "--output", str(tmp_path), "--weights", "none"]) == 2
    out, err = capfd.readouterr()
    assert out.count("$ python -m") == 1
    assert "$ python -m beam_jobs.preprocess" in out
    assert err.count("error: ") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"tfrecords"}


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("import sys; sys.exit(75)", 75),
        ("import sys; sys.exit(1)", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137),
    ],
)
def test_a_stages_exit_code_is_the_demos_and_a_signal_is_told(program, code, stage, monkeypatch, capfd):
    stage(program)
    monkeypatch.setattr(demo, "_demo", lambda _: demo._run("a_stage"))
    assert demo.main([]) == code
    err = capfd.readouterr().err
    assert ("a_stage was ended by signal SIGKILL\n" in err) == (code == 137)


def test_a_stage_that_the_kernel_killed_for_want_of_memory_is_told_as_that(stage, monkeypatch, capfd):
    stage("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    kills = iter([2, 3])
    monkeypatch.setattr(machine, "kills_for_memory", lambda: next(kills))
    monkeypatch.setattr(demo, "_demo", lambda _: demo._run("a_stage"))
    assert demo.main([]) == 137
    assert "a_stage was ended by signal SIGKILL for want of memory\n" in capfd.readouterr().err


def test_ctrl_c_lets_the_stage_tidy_up_and_then_ends_the_demo_with_130(stage, tmp_path):
    stage(
        "import pathlib, time\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "try:\n"
        "    (folder / 'begun').touch()\n"
        "    time.sleep(60)\n"
        "finally:\n"
        "    time.sleep(1.5)\n"  # longer than Python itself would give it
        "    (folder / 'tidy').touch()\n"
    )
    program = (
        "import sys\nfrom canopy.demo import __main__ as demo\n"
        "demo._demo = lambda _: demo._run('a_stage')\n"
        "sys.exit(demo.main([]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True, text=True
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes of the command
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted"
    assert (tmp_path / "tidy").exists()


def test_a_carriage_return_in_an_images_name_makes_no_row_of_its_own(tmp_path):
    images, report = tmp_path / "train-jpg", tmp_path / "report"
    for folder in (images, report):
        folder.mkdir()
    names = ["a", "b\rc"]
    for name in names:
        (images / f"{name}.jpg").touch()
    predicted = tables.as_csv(("image_name", "tags", "predicted"), [(name, "x", "x") for name in names])
    (report / "predictions.csv").write_text(predicted, newline="")
    archive = Archive(images, tmp_path / "labels.csv", test_images=None, sample=None)
    _, sample = demo._validation_images(archive, report, tmp_path)
    assert read_column(sample, "image_name") == names


@pytest.mark.slow
def test_the_demo_walks_through_every_stage_on_an_archive_without_test_images(tiny, tmp_path, command):
    before = sorted(path.name for path in tiny.rglob("*"))
    flags = ("--data", tiny, "--output", tmp_path, "--epochs", 1, "--weights", "none", "--image_size", 32)
    for _ in range(2):  # run again, it does everything again
        done = command("canopy.demo", *flags)
        assert done.returncode == 0, done.stderr
    stages = [line.split()[3] for line in done.stdout.splitlines() if line.startswith("$ ")]
    assert stages == [
        "beam_jobs.preprocess",
        "trainer.launch",
        "trainer.evaluate",
        "beam_jobs.predict",
    ]
    assert "the archive holds no images in test-jpg, so the validation images are predicted" in done.stdout
    with (tmp_path / "report" / "predictions.csv").open(newline="") as file:
        validation = sorted(row["image_name"] for row in csv.DictReader(file))
    assert 0 < len(validation) < 60
    assert check_submission(tmp_path / "submission.csv", validation, TAGS) == len(validation)
    for words in (
        "images read",
        "records, train",
        "images/s",
        "F2",
        "always",
        str(tmp_path / "submission.csv"),
    ):
        assert words in done.stdout
    assert sorted(path.name for path in tiny.rglob("*")) == before
