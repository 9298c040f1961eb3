"""How attempts of several launchers end, from how the workers of all did."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from canopy import cli, machine
from tests.trainer.launching.conftest import MEETS
from trainer import cluster
from trainer.cluster import Place
from trainer.halt import Halt
from trainer.launching import supervise, watch
from trainer.launching.supervise import Crew, Ending


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(watch, "PROBE_SECONDS", 0.1)


def attempts(again=()):
    """The endings of two pods' attempts; those in `again` try again for as long as a restart may mend it."""
    addresses = tuple(f"127.0.0.1:{port}" for port in cluster.free_ports(2))

    def run(index):
        found: list[Ending] = []
        while not found or (index in again and not found[-1].is_final and len(found) < 3):
            found.append(supervise.attempt(Crew(0, Place(index, addresses)), [], Halt(), 20.0))
        return found

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, range(2)))


def test_pods_begin_together_in_the_cluster_that_they_met_in_and_are_done(pretending, tmp_path):
    words = f"open(r'{tmp_path}/' + str(index), 'w').write(told[0])\n"
    pretending(MEETS + words, f"time.sleep(0.5)\n{MEETS}{words}")
    assert [[ending.code for ending in each] for each in attempts()] == [[cli.EXIT_OK]] * 2
    first, second = ((tmp_path / str(index)).read_text() for index in range(2))
    assert first.replace('"index": 0', '"index": 1') == second


def test_a_pod_whose_peers_do_not_come_leaves_it_to_its_cluster_to_start_it_again(pretending):
    pretending(MEETS)
    place = Place(0, tuple(f"127.0.0.1:{port}" for port in cluster.free_ports(2)))
    ending = supervise.attempt(Crew(0, place), [], Halt(), 0.5)
    assert (ending.code, ending.is_final) == (cli.EXIT_PEER_LOST, True)
    assert ending.why.startswith("peer lost: not all came within 0 s: ")


FINDS_A_MISTAKE = "cli.leave_word('no such chip')\nend(cli.EXIT_USER)"
WAITS = f"{MEETS}lost.wait()\nend(cli.EXIT_PEER_LOST)"


@pytest.mark.parametrize("finder", [0, 1])
def test_a_mistake_that_one_pod_finds_before_they_have_met_ends_all(pretending, finder):
    programs = [WAITS, WAITS]
    programs[finder] = FINDS_A_MISTAKE
    pretending(*programs)
    endings = [each[-1] for each in attempts()]
    assert [(each.code, each.why) for each in endings] == [(cli.EXIT_USER, "no such chip")] * 2
    assert endings[finder].is_told
    assert not endings[1 - finder].is_told


@pytest.mark.parametrize("finder", [0, 1])
def test_a_mistake_that_one_pod_finds_while_they_train_ends_all(pretending, finder):
    programs = [WAITS, WAITS]
    programs[finder] = MEETS + FINDS_A_MISTAKE
    pretending(*programs)
    lost, *others = attempts(again=(1 - finder,))[1 - finder]
    assert (lost.code, lost.is_final) == (cli.EXIT_PEER_LOST, False)
    assert f"worker {finder} at " in lost.why
    assert [(each.code, each.why) for each in others] == [(cli.EXIT_USER, "no such chip")]


@pytest.mark.parametrize(
    ("fails", "crash", "why"),
    [
        ("end(cli.EXIT_BUG)", 0, "peer lost: worker 1 at "),
        ("os.kill(os.getpid(), signal.SIGABRT)", 0, "peer lost: worker 1 at "),
        ("os.kill(os.getpid(), signal.SIGKILL)", signal.SIGKILL, "for want of memory"),
    ],
)
def test_a_worker_that_fails_as_its_peer_is_gone_has_lost_it_unless_it_lacked_memory(
    pretending, tmp_path, monkeypatch, fails, crash, why
):
    kills = iter([4, 4])  # as the workers are started
    monkeypatch.setattr(machine, "kills_for_memory", lambda: next(kills, 5))
    once = str(tmp_path / "once")
    later = f"if os.path.exists({once!r}):\n    time.sleep(0.7)\n    end(cli.EXIT_PEER_LOST)\n"
    goes = f"open({once!r}, 'w').close()\n{MEETS}time.sleep(0.3)\nend(cli.EXIT_PEER_LOST)"
    pretending(MEETS + fails, later + goes)
    (ending,), _ = attempts(again=(1,))
    assert (ending.code, ending.is_final, ending.crash) == (cli.EXIT_PEER_LOST, False, crash)
    assert why in ending.why


def test_a_pod_that_is_done_with_the_others_does_not_miss_them(pretending, monkeypatch):
    monkeypatch.setattr(supervise, "LAST_WORDS_SECONDS", 0.3)
    pretending(f"{MEETS}near.say(link.DONE)\ntime.sleep(1.5)", f"{MEETS}end(cli.EXIT_BUG)")
    assert attempts()[0][-1].code == cli.EXIT_OK
