"""The search as a whole: mistakes before the first trial, trials as processes, workers that come and go."""

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import OperationalError

from canopy import cli, machine
from canopy.cli import UserError
from tests.conftest import ROOT, SMALLEST, run_module
from trainer import config, tune
from trainer.tuning import settings, storage

SMALL = [*map(str, SMALLEST)]


def words(records, tmp_path, *own, task=()):
    study = ["--data", str(records), "--study", str(tmp_path / "study.log")]
    return [*study, *own, "--", *SMALL, *task]


def test_trials_of_several_lengths_are_not_compared_epoch_by_epoch(records, tmp_path, capfd):
    study = ["--data", str(records), "--study", str(tmp_path / "study.log"), "--space", "epochs=2,3"]
    assert tune.main(study) == cli.EXIT_USER
    assert "--pruner median compares trials of one length" in capfd.readouterr().err
    assert not (tmp_path / "study.log").exists()


@pytest.mark.parametrize(
    ("own", "task", "said"),
    [
        (["--trials", "0"], [], "--trials"),
        (["--timeout", "-1"], [], "--timeout"),
        (["--timeout", "nan"], [], "--timeout"),
        (["--stale_after", "1"], [], "--stale_after"),
        (["--trails", "3"], [], "--trails"),
        (["--epochs", "3"], [], "--epochs 3: trainer.task's flags stand behind --"),
        (["--data", "nowhere"], [], "nowhere"),
        (["--study", ""], [], "--study is empty"),
        (["--study", "."], [], "is a folder"),
        (["--study", "gs://bucket/study.log"], [], "--study gs://bucket/study.log"),
        (["--study", "https://user:secret@host/study"], [], "--study https://user:***@host/study: a search"),
        (["--study", "postgresql://user:secret@host/name"], [], "--output is missing"),
        (["--study", "sqlite:///"], [], "--output is missing"),
        (["--output", "gs://bucket/trials"], [], "--output gs://bucket/trials"),
        (["--output", "file/trials"], [], "--output file/trials"),
        (["--space", "learning_rate=1..0"], [], "--space learning_rate=1..0"),
        (["--space", "image_size=64,96"], [], "--image_size is fixed"),
        (["--space", "bn_momentum=0.5..1"], [], "--bn_momentum must be"),
        (["--space", "batch_size=8,9", "--local_workers", "2"], [], "batch_size is fixed"),
        (["--local_workers", "3"], [], "--batch_size 8 cannot be shared equally by 3"),
        ([], ["--epochs", "0"], "--epochs"),
        ([], ["--epoch", "2"], "--epoch"),
        ([], ["--model_dir", "somewhere"], "--model_dir"),
        ([], ["--restart"], "--restart"),
        ([], ["--weights", "nowhere.h5"], "nowhere.h5"),
        ([], ["--init_from", "nowhere"], "--init_from nowhere"),
        ([], ["--backbone", "hub:nowhere"], "--backbone hub:nowhere"),
        ([], ["--batch_size", "64000"], "--batch_size 64000 is over 100 times"),
        (["--space", "backbone=keras,hub:nowhere"], [], "--backbone hub:nowhere"),
    ],
)
def test_a_mistake_that_every_trial_would_make_is_one_sentence_before_the_first(
    own, task, said, records, tmp_path, capfd, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    assert tune.main(words(records, tmp_path, *own, task=task)) == cli.EXIT_USER
    told = capfd.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert said in told
    assert "secret" not in told
    assert not list(tmp_path.rglob("trial-*"))
    assert not (tmp_path / "study.log").exists()


def test_more_workers_a_trial_than_memory_holds_are_refused(monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: 25e9)
    with pytest.raises(UserError, match=r"^--local_workers 1000 takes at least 419\.4 GB of memory, and "):
        settings.parse(["--data", "d", "--study", "study.log", "--local_workers", "1000"])


def test_the_trials_of_a_study_in_a_file_lie_beside_it():
    def output(study):
        return settings.parse(["--data", "d", "--study", study]).output

    assert output("/data/tune/study.log") == "/data/tune/study-trials"
    assert output("sqlite:////data/tune/study.db") == "/data/tune/study-trials"


def test_a_study_in_a_folder_that_is_closed_is_told_when_its_folder_is_looked_at(locked):
    study = str(locked / "study.log")
    assert settings.parse(["--data", "d", "--study", study]).study == study


def table_and_command(done):
    """The last line that a search prints, as flags of training."""
    last = shlex.split(done.stdout.splitlines()[-1])
    assert last[:3] == ["python", "-m", "trainer.launch"]
    return config.parse(last[last.index("--") + 1 :])


def test_one_trial_from_flags_to_the_command_line_to_paste(records, tmp_path):
    flags = words(records, tmp_path, "--trials", 1, task=["--epochs", "1"])
    done = run_module("trainer.tune", *flags)
    assert done.returncode == 0, done.stderr
    begins, epoch, end = done.stderr.splitlines()
    assert begins.startswith("tune: trial 0 begins: learning_rate 0.001")
    assert epoch.startswith("tune: trial 0: epoch 1, F2 0.")
    assert end.startswith("tune: trial 0: F2 0.")
    assert "1 of 1 done; learning_rate 0.001" in end
    best = table_and_command(done)
    assert (best.epochs, best.image_size, best.learning_rate) == (1, 32, 1e-3)
    folder = tmp_path / "study-trials" / "trial-0000"
    left = {path.name for path in folder.iterdir()}
    assert left == {"export", "metrics.jsonl", "run.json", "log.txt"}
    assert json.loads((folder / "export" / "model.json").read_text())["config"]["epochs"] == 1
    assert (tmp_path / "study-trials" / "history.png").read_bytes().startswith(b"\x89PNG")
    # The same command again has nothing to do; one of other flags is refused.
    assert run_module("trainer.tune", *flags).stdout.splitlines()[-1] == done.stdout.splitlines()[-1]
    other = run_module("trainer.tune", *flags, "--learning_rate", 0.1)
    assert other.returncode == cli.EXIT_USER
    assert "--space learning_rate: was 1e-4..1e-2:log, is not there" in other.stderr


def test_a_database_that_goes_away_before_the_first_trial_is_one_sentence_of_its_own_words(
    records, tmp_path, capfd, monkeypatch
):
    def fail(*_, **__):
        raise StorageInternalError("invalid data") from OperationalError("INSERT", {}, Exception("gone away"))

    monkeypatch.setattr(optuna.Study, "ask", fail)
    assert tune.main(words(records, tmp_path)) == cli.EXIT_PEER_LOST
    assert capfd.readouterr().err == "out of reach for now: the study: gone away\n"


def test_the_first_trial_tries_the_defaults_also_where_whoever_began_the_study_was_killed_at_once(
    records, tmp_path, monkeypatch
):
    tried = []

    def killed(*args, **named):
        storage.open_study(*args, **named)
        raise SystemExit(137)

    def train(worker, taken):
        tried.append(worker.space.tidy(taken.params))
        worker.shared.tell(taken, 0.5)
        return "complete", ""

    monkeypatch.setattr(tune._Worker, "_train", train)
    monkeypatch.setattr("trainer.tuning.report.tell", lambda *_, **__: None)
    command = words(records, tmp_path, "--trials", "2", "--space", "augment=d4,affine")
    with monkeypatch.context() as moment:
        moment.setattr(tune, "storage", SimpleNamespace(**{**vars(storage), "open_study": killed}))
        with pytest.raises(SystemExit):
            tune.main(command)
    assert tune.main(command) == cli.EXIT_OK
    defaults = {field.name: field.default for field in dataclasses.fields(config.Config)}
    assert len(tried) == 2
    assert tried[0] == {name: defaults[name] for name in tried[0]}
    assert tried[1] != tried[0]


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A machine on which every new process fails."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import os, sys\nprint('error: the device is gone', file=sys.stderr, flush=True)\nos._exit(2)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))


def test_trials_that_all_fail_end_the_search_with_their_reason(broken, records, tmp_path, capfd):
    assert tune.main(words(records, tmp_path)) == cli.EXIT_USER
    told = capfd.readouterr().err.splitlines()
    assert told[-1] == "error: 3 trials in a row failed here, the last one with: the device is gone"
    assert [line.split(":")[1] for line in told[:-1]] == [
        f" trial {number}{what}" for number in range(3) for what in (" begins", "")
    ]


def test_a_machine_on_which_trials_fail_leaves_the_rest_to_others(
    broken, records, tmp_path, capfd, monkeypatch
):
    word = tmp_path / "word"
    monkeypatch.setenv("CANOPY_TERMINATION_LOG", str(word))
    flags = words(records, tmp_path, "--max_failures", "1")
    assert tune.main(flags) == cli.EXIT_USER
    path = tmp_path / "study.log"
    study = optuna.load_study(study_name="canopy", storage=JournalStorage(JournalFileBackend(str(path))))
    study.tell(study.ask(), 0.9)  # elsewhere all is well
    assert tune.main(flags) == cli.EXIT_PEER_LOST
    told = capfd.readouterr().err.splitlines()[-1]
    assert told == f"tune: {word.read_text()}"
    assert "1 trials in a row failed here" in told
    assert len(list(tmp_path.glob("study-trials/trial-*"))) == 2


def begin(records, tmp_path, *own, epochs=3):
    flags = words(records, tmp_path, *own, task=["--epochs", epochs, "--checkpoint_steps", "2"])
    command = [sys.executable, "-m", "trainer.tune", *map(str, flags)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def wait_for(condition, seconds=240):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return found


def training(tmp_path):
    """The training processes whose trials lie below a folder."""
    words = ["ps", "-A", "-ww", "-o", "pid=", "-o", "args="]  # as macOS' ps takes it, too
    listed = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    return [
        int(line.split()[0])
        for line in listed.splitlines()
        if "trainer.task" in line and str(tmp_path) in line
    ]


@pytest.mark.slow
def test_a_killed_workers_trial_is_tried_again_by_the_other(records, tmp_path):
    """Two workers share a study of three trials; one is killed in its trial."""
    flags = ("--trials", 3, "--stale_after", 20)
    doomed = begin(records, tmp_path, *flags)
    wait_for(lambda: list(tmp_path.glob("study-trials/trial-0000/checkpoints/*.npz")))
    other = begin(records, tmp_path, *flags)
    os.kill(doomed.pid, signal.SIGKILL)
    doomed.communicate()
    out, told = other.communicate(timeout=500)
    assert other.returncode == 0, told
    assert "tune: trial 0 was lost: its worker gives no sign of life" in told
    assert "3 of 3 trials: 3 complete" in out
    assert not training(tmp_path)
    folders = sorted((tmp_path / "study-trials").glob("trial-*"))
    assert len(folders) == 3
    assert not (tmp_path / "study-trials" / "trial-0000").exists()  # its retry took it over
    resumed = [each for each in folders if "resuming after step" in (each / "log.txt").read_text()]
    assert len(resumed) == 1
    assert sum((each / "export").exists() for each in folders) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, cli.EXIT_TERMINATED), (signal.SIGINT, cli.EXIT_INTERRUPTED)]
)
def test_a_stopped_search_leaves_no_process_and_goes_on_where_it_was(number, code, records, tmp_path):
    first = begin(records, tmp_path, "--trials", 1, epochs=4)
    wait_for(lambda: list(tmp_path.glob("study-trials/trial-0000/checkpoints/*.npz")))
    first.send_signal(number)
    _, told = first.communicate(timeout=60)
    assert first.returncode == code, told
    assert told.startswith("tune: trial 0 begins: ")
    assert told.endswith("tune: stopped after 0 of 1 trials; the same command goes on\n")
    assert not training(tmp_path)
    again = begin(records, tmp_path, "--trials", 1, epochs=4)
    out, told = again.communicate(timeout=300)
    assert again.returncode == 0, told
    assert "1 of 1 trials: 1 complete" in out
    assert "resuming after step" in (tmp_path / "study-trials" / "trial-0001" / "log.txt").read_text()


@pytest.mark.slow
def test_the_time_limit_ends_a_trial_and_keeps_it(records, tmp_path):
    run = begin(records, tmp_path, "--trials", 1, "--timeout", 15, epochs=1000)
    out, told = run.communicate(timeout=120)
    assert run.returncode == 0, told
    assert "0 of 1 trials" in out
    assert "the same command goes on" in out
    assert not training(tmp_path)
    assert (tmp_path / "study-trials" / "trial-0000" / "run.json").exists()
