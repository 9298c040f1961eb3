"""Starting workers: mistakes are told before anything starts, losses are made good."""

import errno
import fcntl
import signal
import tempfile
from pathlib import Path

import pytest

from canopy import cli, locks, machine
from tests.conftest import SMALLEST
from trainer import cluster, launch
from trainer.halt import Halt
from trainer.launching import supervise
from trainer.launching.supervise import Ending

MISTAKES = [
    (["--local_workers", "-1"], [], "--local_workers"),
    (["--local_workers", "2"], ["--batch_size", "9"], "--batch_size 9"),
    (["--local_workers", "2"], ["--batch_size", "2000000000"], "--batch_size 2000000000 is over 100 times"),
    (["--local_workers", "2"], ["--epochs", "0"], "--epochs"),
    (["--local_workers", "2"], ["--data", "nowhere"], "nowhere"),
    (["--local_workers", "2"], ["--weights", "nowhere.h5"], "nowhere.h5"),
    (
        ["--local_workers", "2"],
        ["--backbone", "hub:nowhere"],
        "--backbone hub:nowhere: there is no such folder",
    ),
    (["--local_workers", "2"], ["--init_from", "nowhere", "--weights", "none"], "--init_from nowhere"),
    (["--local_worker", "2"], [], "--local_worker"),
    (["--local_workers", "2", "--epochs", "3"], [], "--epochs 3: trainer.task's flags stand behind --"),
    (["--local_workers", "2", "--rendezvous_timeout", "0"], [], "--rendezvous_timeout"),
    ([], [], "JOB_COMPLETION_INDEX"),
]


@pytest.mark.parametrize(("own", "task", "named"), MISTAKES)
def test_a_mistake_is_one_sentence_and_starts_nothing(
    own, task, named, records, tmp_path, capfd, monkeypatch
):
    monkeypatch.delenv("JOB_COMPLETION_INDEX", raising=False)
    flags = [*own, "--", "--data", str(records), "--model_dir", str(tmp_path / "model"), *task]
    assert launch.main(flags) == cli.EXIT_USER
    told = capfd.readouterr().err.strip()
    assert told.startswith("error: ")
    assert named in told
    assert "\n" not in told
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("workers", [1_000, 10**9])
def test_more_workers_than_memory_holds_are_refused_before_the_first_is_started(
    workers, records, tmp_path, capfd, monkeypatch
):
    monkeypatch.setattr(machine, "memory", lambda: 25e9)
    monkeypatch.setattr(launch, "_keep_going", lambda *_: Ending(cli.EXIT_OK, "done"))
    flags = ["--data", str(records), "--model_dir", str(tmp_path / "model"), "--weights", "none"]
    command = ["--local_workers", str(workers), "--", *flags, "--batch_size", str(workers)]
    assert launch.main(command) == cli.EXIT_USER
    told = capfd.readouterr().err
    assert told == (
        f"error: --local_workers {workers} takes at least {0.4194304 * workers:,.1f} GB of memory, "
        "and this machine has 25.0 GB, for 59 at most\n"
    )
    assert not (tmp_path / "model").exists()


def test_more_workers_than_files_may_be_open_for_are_refused_before_the_first_is_started(
    records, tmp_path, capfd, files_allowed
):
    files_allowed(64)
    flags = ["--data", str(records), "--model_dir", str(tmp_path / "model"), "--weights", "none"]
    assert launch.main(["--local_workers", "20", "--", *flags, "--batch_size", "20"]) == cli.EXIT_USER
    assert capfd.readouterr().err == (
        "error: --local_workers 20 takes 96 open files, and a process may have 64 here, for 12 at most: "
        "allow more with ulimit -n 96\n"
    )
    assert not (tmp_path / "model").exists()


def test_a_small_machine_may_have_several_workers(records, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: 4e9)
    monkeypatch.setattr(launch, "_keep_going", lambda *_: Ending(cli.EXIT_OK, "done"))
    flags = ["--data", str(records), "--model_dir", str(tmp_path / "model"), "--weights", "none"]
    assert launch.main(["--local_workers", "8", "--", *flags, "--batch_size", "8"]) == cli.EXIT_OK


def pod(index, workers=2):
    addresses = ",".join(f"127.0.0.1:{port}" for port in cluster.free_ports(workers))
    return {"JOB_COMPLETION_INDEX": str(index), "CANOPY_ADDRESSES": addresses}


@pytest.mark.parametrize("empty", [False, True])
def test_restart_in_a_pod_needs_to_know_whose_progress_it_may_delete(
    records, tmp_path, capfd, monkeypatch, empty
):
    for name, value in pod(0).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CANOPY_RUN_ID", raising=False)
    if empty:
        monkeypatch.setenv("CANOPY_RUN_ID", "")
    flags = ["--data", str(records), "--model_dir", str(tmp_path / "model"), "--weights", "none"]
    for restart in (["--restart"], ["--restart=true"], ["--restart", "true"]):
        assert launch.main(["--", *flags, *restart]) == cli.EXIT_USER
        assert "CANOPY_RUN_ID" in capfd.readouterr().err


@pytest.mark.parametrize(
    "mistake", [["--weights", "nowhere"], ["--weights", "none", "--init_from", "nowhere"]]
)
def test_what_a_run_begins_with_is_not_asked_for_where_a_checkpoint_may_be_taken_up(
    records, tmp_path, capfd, monkeypatch, mistake
):
    monkeypatch.setattr(launch, "_keep_going", lambda *_: Ending(cli.EXIT_OK, "done"))
    command = ["--local_workers", "1", "--", "--data", str(records), "--model_dir", str(tmp_path), *mistake]
    assert launch.main(command) == cli.EXIT_USER
    assert f"{mistake[-2]} nowhere" in capfd.readouterr().err
    (tmp_path / "checkpoints").mkdir()
    assert launch.main(command) == cli.EXIT_USER
    (tmp_path / "checkpoints" / "step-00000008.npz").touch()
    assert launch.main(command) == cli.EXIT_OK


def test_each_launch_is_a_run_of_its_own_also_from_one_process(records, tmp_path, monkeypatch):
    monkeypatch.delenv("CANOPY_RUN_ID", raising=False)
    runs = []

    def keep_going(_settings, crew, _halt):
        runs.append(crew.environment["CANOPY_RUN_ID"])
        return Ending(cli.EXIT_OK, "done")

    monkeypatch.setattr(launch, "_keep_going", keep_going)
    command = ["--local_workers", "1", "--", "--data", str(records), "--model_dir", str(tmp_path / "model")]
    command += ["--weights", "none"]
    assert [launch.main(command) for _ in range(2)] == [cli.EXIT_OK] * 2
    assert len(set(runs)) == 2
    monkeypatch.setenv("CANOPY_RUN_ID", "")
    launch.main(command)
    assert runs[-1]
    monkeypatch.setenv("CANOPY_RUN_ID", "job")
    launch.main(command)
    assert runs[-1] == "job"


@pytest.fixture
def tried(records, tmp_path, monkeypatch):
    """Launches within a launch, of the same folder: exit codes; what is given is added to the flags."""
    monkeypatch.delenv("CANOPY_RUN_ID", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def launched(folder, *flags):
        task = ["--data", str(records), "--model_dir", folder, "--weights", "none"]
        return launch.main(["--local_workers", "1", "--", *task, *flags])

    def within(folder, *flags):
        left, codes = [folder], []

        def keep_going(*_):
            if left:
                codes.append(launched(left.pop(), *flags))
            return Ending(cli.EXIT_OK, "done")

        monkeypatch.setattr(launch, "_keep_going", keep_going)
        assert launched("model") == cli.EXIT_OK
        return codes[0]

    return within


def test_a_run_that_is_started_twice_is_refused_the_second_time(tried, tmp_path, capfd):
    assert tried(str(tmp_path / "model")) == cli.EXIT_USER  # the same folder by another name
    told = capfd.readouterr().err
    assert told.startswith(f"error: --model_dir {tmp_path}/model: another run on this machine trains there")
    assert told.count("\n") == 1


def test_one_that_begins_anew_or_elsewhere_is_not(tried, tmp_path):
    assert tried("model", "--restart") == cli.EXIT_OK
    assert tried("other") == cli.EXIT_OK
    assert not list(tmp_path.rglob("run-*"))


def test_its_lock_lies_where_no_other_user_can_hold_it_or_there_is_none(tried, tmp_path, monkeypatch):
    seen = []

    def looking(path, busy, holding=locks.holding):
        seen.append(Path(path).parent.stat().st_mode & 0o777)
        return holding(path, busy)

    monkeypatch.setattr(locks, "holding", looking)
    assert tried("model") == cli.EXIT_USER
    assert seen == [0o700, 0o700]
    (folder,) = tmp_path.glob("canopy-*")
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert tried("model") == cli.EXIT_OK
    assert len(seen) == 2


def test_without_room_for_a_lock_a_run_starts_all_the_same(tried, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(fcntl, "flock", full)
    assert tried("model") == cli.EXIT_OK


def test_pods_that_do_not_come_are_named_and_the_launcher_gives_up(records, tmp_path, capfd, monkeypatch):
    here = pod(0, workers=3)
    addresses = here["CANOPY_ADDRESSES"].split(",")
    word, ready = tmp_path / "word", tmp_path / "ready"
    variables = {**here, "CANOPY_TERMINATION_LOG": str(word), "CANOPY_READY_FILE": str(ready)}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    flags = ["--data", records, "--model_dir", tmp_path / "model", *SMALLEST, "--batch_size", 9]
    own = ["--rendezvous_timeout", 3, "--"]
    assert launch.main([str(flag) for flag in (*own, *flags)]) == cli.EXIT_PEER_LOST
    told = capfd.readouterr().err
    for index in (1, 2):
        assert f"worker {index} at {addresses[index]} (not there)" in told
    assert word.read_text() == told.strip().splitlines()[-1].removeprefix("[worker 0] launch: ")
    assert not ready.exists()


class Attempts:
    """Stands for attempts that end as they are told, in no time."""

    def __init__(self, *endings):
        self.left = list(endings)
        self.told = []  # of each, whether a worker before it has trained

    def __call__(self, crew, *_):
        self.told.append("CANOPY_HAS_TRAINED" in crew.environment)
        return self.left.pop(0)


def lost(saved=-1):
    return Ending(cli.EXIT_PEER_LOST, "peer lost", saved=saved, is_final=False)


class Pauses(Halt):
    """Notes how long it would have slept."""

    def __init__(self):
        super().__init__()
        self.slept = []

    def wait(self, seconds):
        self.slept.append(seconds)


def keep_going(monkeypatch, max_restarts, *endings):
    """How a launcher ended, how long it paused before each restart, and what it told each attempt."""
    attempts, pauses = Attempts(*endings), Pauses()
    monkeypatch.setattr(supervise, "attempt", attempts)
    settings = launch.Settings(local_workers=1, max_restarts=max_restarts, task_flags=())
    ending = launch._keep_going(settings, supervise.Crew(1, cluster.Place(0, ())), pauses)
    assert not attempts.left
    return ending, pauses.slept, attempts.told


def test_the_first_restart_waits_for_nothing_and_later_ones_ever_longer(monkeypatch):
    ending, slept, _ = keep_going(monkeypatch, 8, *[lost()] * 9)
    assert slept == [0, 1, 2, 4, 8, 16, 30, 30]
    assert ending.code == cli.EXIT_PEER_LOST
    assert ending.why == "gave up after 8 restarts without a new checkpoint: peer lost"


def test_a_new_checkpoint_begins_the_count_anew_and_an_old_one_does_not(monkeypatch):
    done = Ending(cli.EXIT_OK, "done")
    ending, slept, _ = keep_going(monkeypatch, 2, lost(), lost(), lost(5), lost(), lost(9), lost(9), done)
    assert ending == done
    assert slept == [0, 1, 0, 1, 0, 1]
    ending, slept, _ = keep_going(monkeypatch, 2, lost(5), lost(5), lost(3))
    assert (ending.code, slept) == (cli.EXIT_PEER_LOST, [0, 1])


def test_a_worker_is_told_once_one_before_it_has_trained(monkeypatch):
    done = Ending(cli.EXIT_OK, "done")
    assert keep_going(monkeypatch, 5, lost(), lost(7), lost(), done)[2] == [False, False, True, True]


def test_a_worker_that_crashes_at_every_start_is_told_from_a_peer_that_is_lost(monkeypatch):
    crashed = Ending(cli.EXIT_PEER_LOST, "worker 0 ended with signal SIGSEGV", is_final=False, crash=11)
    assert keep_going(monkeypatch, 1, crashed, crashed)[0].code == 128 + signal.SIGSEGV
    assert keep_going(monkeypatch, 1, crashed, lost())[0].code == cli.EXIT_PEER_LOST


@pytest.mark.parametrize(("how", "code"), [(signal.SIGSEGV, 139), (signal.SIGKILL, cli.EXIT_PEER_LOST)])
def test_only_a_crash_is_counted_and_a_kill_is_not(records, tmp_path, monkeypatch, how, code):
    """As a broken driver or library would end it: in every start, before it trains."""
    (tmp_path / "sitecustomize.py").write_text(
        f"import os, sys\nif 'trainer.task' in ' '.join(sys.orig_argv): os.kill(os.getpid(), {int(how)})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    flags = ["--data", str(records), "--model_dir", str(tmp_path / "model"), *SMALLEST]
    assert launch.main(["--local_workers", "1", "--max_restarts", "1", "--", *map(str, flags)]) == code


def test_what_a_restart_does_not_mend_is_not_tried_again(monkeypatch):
    for code in (cli.EXIT_USER, cli.EXIT_BUG, cli.EXIT_TERMINATED):
        ending, slept, _ = keep_going(monkeypatch, 10, Ending(code, "so it is"))
        assert (ending.code, slept) == (code, [])


@pytest.mark.parametrize("is_pod", [False, True])
def test_a_mistake_that_every_worker_finds_is_told_once(records, tmp_path, command, monkeypatch, is_pod):
    (tmp_path / "run.json").write_text("{")
    for name, value in pod(0, workers=1).items() if is_pod else ():
        monkeypatch.setenv(name, value)
    flags = ("--data", records, "--model_dir", tmp_path, *SMALLEST)
    done = command("trainer.launch", *(() if is_pod else ("--local_workers", 2)), "--", *flags)
    assert done.returncode == cli.EXIT_USER
    assert done.stderr.count("run.json cannot be understood") == 1
    assert "Traceback" not in done.stderr
