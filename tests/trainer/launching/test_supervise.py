"""How an attempt ends, from how its workers did."""

import signal
import time

import pytest

from canopy import cli, machine
from tests.trainer.launching.conftest import MEETS
from tests.trainer.surviving import is_running
from trainer.cluster import Place
from trainer.halt import Halt
from trainer.launching import supervise, worker
from trainer.launching.supervise import Crew, Ending


def test_what_a_restart_cannot_mend_is_the_runs_exit_code():
    lost, killed, stopped = cli.EXIT_PEER_LOST, -signal.SIGKILL, cli.EXIT_TERMINATED
    assert supervise.verdict([lost, killed]) == cli.EXIT_PEER_LOST
    assert supervise.verdict([lost, stopped]) == cli.EXIT_PEER_LOST
    assert supervise.verdict([lost, cli.EXIT_USER]) == cli.EXIT_USER
    assert supervise.verdict([lost, cli.EXIT_BUG]) == cli.EXIT_BUG
    assert supervise.verdict([cli.EXIT_PIPE]) == cli.EXIT_PIPE  # nobody reads: no restart mends that
    assert supervise.verdict([lost, cli.EXIT_INTERRUPTED]) == cli.EXIT_INTERRUPTED
    assert supervise.verdict([killed, cli.EXIT_BUG]) == cli.EXIT_PEER_LOST
    assert supervise.verdict([stopped, cli.EXIT_BUG]) == cli.EXIT_PEER_LOST


def attempt(workers=2, halt=None):
    """One attempt on this machine."""
    return supervise.attempt(Crew(workers, Place(0, ())), [], halt or Halt(), 600.0)


SAVES_AND_STEPS = f"{MEETS}near.say(link.SAVED, 5 + index)\nnear.say(link.STEP, 1)\n"
UNTIL_READY = "until(lambda: os.path.exists(os.environ['CANOPY_READY_FILE']))\n"


def test_all_that_are_done_make_a_run_that_is_done(pretending, tmp_path):
    pretending(*[SAVES_AND_STEPS + UNTIL_READY] * 2)
    assert attempt() == Ending(cli.EXIT_OK, "done", saved=6)
    assert not (tmp_path / "ready").exists()


def test_all_begin_in_one_cluster_once_the_last_one_is_ready(pretending, tmp_path):
    late, words = tmp_path / "late", f"open(r'{tmp_path}/' + str(index), 'w').write(told[0])\n"
    pretending(
        f"{MEETS}{words}end(not os.path.exists({str(late)!r}))",
        f"time.sleep(0.5)\nopen({str(late)!r}, 'w').close()\n{MEETS}{words}",
    )
    assert attempt().code == cli.EXIT_OK
    first, second = ((tmp_path / str(index)).read_text() for index in range(2))
    assert first.replace('"index": 0', '"index": 1') == second


def test_nobody_is_called_ready_before_a_step(pretending, tmp_path):
    pretending(f"{MEETS}time.sleep(0.5)\nend(os.path.exists(os.environ['CANOPY_READY_FILE']))")
    assert attempt(1).code == cli.EXIT_OK


WAITS = f"{MEETS}lost.wait()\nnear.say(link.SAVED, 7)\ntime.sleep(0.3)\nend(cli.EXIT_PEER_LOST)"


@pytest.mark.parametrize(("how", "crash"), [(signal.SIGKILL, 0), (signal.SIGSEGV, signal.SIGSEGV)])
def test_where_one_was_killed_the_others_save_at_once_and_a_restart_may_mend_it(
    pretending, monkeypatch, how, crash
):
    monkeypatch.setattr(machine, "kills_for_memory", lambda: 4)  # before, of others
    pretending(WAITS, f"{MEETS}time.sleep(0.3)\nos.kill(os.getpid(), {int(how)})")
    why = f"worker 1 ended with signal {how.name}: see its log"
    began = time.monotonic()
    assert attempt() == Ending(cli.EXIT_PEER_LOST, why, saved=7, is_final=False, crash=crash)
    assert time.monotonic() - began < supervise.LAST_WORDS_SECONDS


@pytest.mark.parametrize(
    ("code", "why"),
    [(cli.EXIT_PEER_LOST, "worker 1 ended with signal SIGKILL: see its log"), (cli.EXIT_USER, "its word")],
)
def test_one_that_was_killed_is_the_reason_unless_another_found_a_mistake(pretending, monkeypatch, code, why):
    monkeypatch.setattr(supervise, "POLL_SECONDS", 0.7)  # both end between two looks
    pretending(
        f"{MEETS}cli.leave_word('its word')\nend({code})", f"{MEETS}os.kill(os.getpid(), signal.SIGKILL)"
    )
    ending = attempt()
    assert (ending.code, ending.why) == (code, why)


def test_one_that_was_killed_for_want_of_memory_is_told_from_others_that_were(
    pretending, monkeypatch, caplog
):
    kills = iter([4, 4])  # as the workers are started

    monkeypatch.setattr(machine, "kills_for_memory", lambda: next(kills, 5))
    pretending(WAITS, f"{MEETS}time.sleep(0.3)\nos.kill(os.getpid(), signal.SIGKILL)")
    told = "worker 1 ended with signal SIGKILL for want of memory"
    ending = attempt()
    assert (ending.code, ending.why) == (
        cli.EXIT_PEER_LOST,
        f"{told}: give it more, or a smaller --batch_size",
    )
    assert (ending.is_final, ending.crash) == (False, signal.SIGKILL)
    assert told in caplog.messages
    assert "worker 0 ended with exit code 75" not in caplog.messages  # it waited, and was told to end


def test_a_mistake_that_one_worker_finds_ends_all_and_is_told(pretending, capfd, caplog, monkeypatch):
    monkeypatch.setattr(supervise, "LAST_WORDS_SECONDS", 0.3)
    finds = f"{MEETS}write('error: no such chip')\ncli.leave_word('no such chip')\nend(cli.EXIT_USER)"
    pretending(WAITS, finds)
    assert attempt() == Ending(cli.EXIT_USER, "no such chip", saved=7, is_told=True)
    assert capfd.readouterr().err == "error: no such chip"
    assert not caplog.messages


def test_what_the_others_say_after_the_chief_found_a_mistake_is_kept_back(pretending, capfd):
    chief = f"{MEETS}write('error: no such chip')\nend(cli.EXIT_USER)"
    says = "write('a peer is gone\\nerror: no such chip\\n')"
    pretending(chief, f"{MEETS}time.sleep(1)\n{says}\nend(cli.EXIT_BUG)")
    ending = attempt()
    assert (ending.code, ending.why) == (cli.EXIT_USER, "worker 0 ended with exit code 2: see its log")
    assert capfd.readouterr().err == "error: no such chip"


def test_a_bug_that_was_another_workers_mistake_is_told_as_that(pretending):
    finds = "cli.leave_word('no such chip')\nend(cli.EXIT_USER)"
    pretending(f"{MEETS}end(cli.EXIT_BUG)", f"{MEETS}time.sleep(0.5)\n{finds}")
    ending = attempt()
    assert (ending.code, ending.why) == (cli.EXIT_USER, "no such chip")


def test_a_bug_ends_all_and_no_restart_mends_it(pretending, monkeypatch):
    monkeypatch.setattr(supervise, "LAST_WORDS_SECONDS", 0.3)
    pretending(WAITS, f"{MEETS}end(cli.EXIT_BUG)")
    why = "worker 1 ended with exit code 1: see its log"
    assert attempt() == Ending(cli.EXIT_BUG, why, saved=7)


@pytest.mark.parametrize(
    ("how", "code", "saves", "stands"),
    [
        (signal.SIGTERM, cli.EXIT_TERMINATED, 9, "the newest checkpoint is of step 9"),
        (signal.SIGTERM, cli.EXIT_TERMINATED, 0, "the newest checkpoint is of step 0"),
        (signal.SIGINT, cli.EXIT_INTERRUPTED, -1, "no checkpoint was written since the start"),
    ],
)
def test_a_signal_reaches_the_workers_and_they_get_the_time_to_save(pretending, how, code, saves, stands):
    asks = f"os.kill(os.getppid(), {int(how)})\n"
    stops = f"signal.sigwait([signal.SIGTERM])\ntime.sleep(0.3)\nnear.say(link.SAVED, {saves})\nend({code})"
    pretending(asks + stops, stops)
    with Halt() as halt:
        ending = attempt(halt=halt)
    assert (ending.code, ending.why) == (code, f"stopped by {how.name}: {stands}")


def test_one_that_is_frozen_is_lost(pretending, monkeypatch):
    monkeypatch.setattr(worker, "FROZEN_SECONDS", 1.0)
    monkeypatch.setattr(worker, "STALLED_SECONDS", 3.0)
    pretending(WAITS, f"{MEETS}os.kill(os.getpid(), signal.SIGSTOP)")
    why = "peer lost: worker 1 is frozen: it gives no sign of life"
    assert attempt() == Ending(cli.EXIT_PEER_LOST, why, saved=7, is_final=False)


def test_no_process_outlives_an_attempt_that_fails(pretending, tmp_path):
    class Fails(Halt):
        @property
        def code(self):
            if len(list(tmp_path.glob("pid-*"))) < 2:
                return 0
            raise RuntimeError("a bug")

        @code.setter
        def code(self, _):
            pass

    pretending(*[f"open(r'{tmp_path}/pid-%d' % os.getpid(), 'w')\ntime.sleep(60)"] * 2)
    (tmp_path / "ready").touch()
    with pytest.raises(RuntimeError, match="a bug"):
        attempt(halt=Fails())
    assert not any(is_running(int(path.name.removeprefix("pid-"))) for path in tmp_path.glob("pid-*"))
    assert not (tmp_path / "ready").exists()
