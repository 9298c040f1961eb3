"""Who is one of a run's launchers, by which address it is found, and who is none of them."""

import contextlib
import dataclasses
import socket
import threading
import time

import pytest

from canopy import cli
from tests.conftest import has_ipv6
from tests.trainer.launching.meeting import call, named, places, results
from tests.trainer.surviving import wait_for
from trainer import cluster
from trainer.cluster import Place
from trainer.launching import rendezvous, watch
from trainer.launching.rendezvous import Meeting
from trainer.launching.wire import GREETING


def test_pods_with_names_train_by_the_ip_addresses_that_they_met_at():
    place = named("localhost", 0)
    with Meeting(place) as chief, Meeting(dataclasses.replace(place, index=1)) as other:
        chief.ready()
        other.ready()
        start, its_start = results([chief, other])
    assert start == its_start
    found, given = (list(map(cluster.split, each)) for each in (start.addresses, place.addresses))
    assert {host for host, _ in found} <= {"127.0.0.1", "::1"}
    assert [port for _, port in found] == [port for _, port in given]


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_pods_that_have_ipv6_alone_train_by_addresses_in_brackets():
    place = named("[::1]", 0)
    with Meeting(place) as chief, Meeting(dataclasses.replace(place, index=1)) as other:
        chief.ready()
        other.ready()
        found = results([chief, other])
    assert [start.addresses for start in found] == [place.addresses] * 2  # as TF_CONFIG wants them


def test_addresses_that_need_no_name_server_are_trained_by_as_they_were_given():
    """Connections may be forwarded to them: the IP addresses that they met at need not be reached."""
    place = dataclasses.replace(named("localhost", 0), by_name=False)
    with Meeting(place) as chief, Meeting(dataclasses.replace(place, index=1)) as other:
        chief.ready()
        other.ready()
        assert [start.addresses for start in results([chief, other])] == [place.addresses] * 2


@pytest.mark.parametrize(("by_name", "calls"), [(True, 2), (False, 0)])
def test_a_chief_calls_all_others_that_have_names_until_they_come(by_name, calls, monkeypatch):
    monkeypatch.setattr(rendezvous, "BEAT_SECONDS", 0.05)
    here, called = dataclasses.replace(places(3)[0], by_name=by_name), []

    def count(server):
        with contextlib.suppress(OSError):
            while True:
                server.accept()[0].close()
                called.append(server)

    with contextlib.ExitStack() as stack:
        servers = [socket.create_server(cluster.split(address)) for address in here.addresses[1:]]
        for server in servers:
            stack.enter_context(server)
            stack.callback(server.shutdown, socket.SHUT_RDWR)
            threading.Thread(target=count, args=(server,), daemon=True).start()
        with Meeting(here):
            time.sleep(0.3)
            wait_for(lambda: all(called.count(server) >= calls for server in servers), seconds=30)
    assert bool(called) is by_name


def test_a_chief_whom_nobody_finds_calls_the_others():
    """Its name gives the IP address of the pod in whose place it came."""
    place = named("127.0.0.1", 0)
    chief_port = cluster.split(place.addresses[0])[1]
    lost = (f"no-such-host.invalid:{chief_port}", place.addresses[1])
    with Meeting(place) as chief, Meeting(dataclasses.replace(place, index=1, addresses=lost)) as other:
        chief.ready()
        other.ready()
        start, its_start = results([chief, other])
    assert start == its_start
    assert start.addresses == place.addresses


def test_another_runs_pod_at_an_ip_address_that_was_ours_is_none_of_us():
    place = named("127.0.0.1", 0)
    with Meeting(place) as chief, Meeting(dataclasses.replace(place, index=1, run="another")) as stranger:
        chief.ready()
        stranger.ready()
        assert results([chief, stranger], seconds=1.5) == [None, None]
        assert chief.missing() == f"worker 1 at {place.addresses[1]} (not there)"


@pytest.mark.parametrize("index", [0, 2])
def test_one_that_is_none_of_the_others_is_told_so_by_the_chief(index):
    here = places(2)
    with Meeting(here[0]) as chief, call(here[0], index=index) as stranger:
        assert stranger.hear()["end"] == cli.EXIT_USER
        assert chief.missing() == f"worker 1 at {here[0].addresses[1]} (not there)"


def test_pods_that_count_their_number_differently_are_refused():
    here = places(2)
    three = Place(1, (*here[0].addresses, "127.0.0.1:1"))
    with Meeting(here[0]) as chief, Meeting(three) as other:
        chief.ready()
        found = results([other])[0]
        assert (found.code, chief.poll()) == (cli.EXIT_USER, None)
        assert "counts 3 workers and the chief 2" in found.why


def test_one_that_takes_another_worker_for_the_chief_is_sent_away_and_taken_for_none():
    """Its name server is behind, and the chief's name stands for the other's IP address."""
    place = dataclasses.replace(places(3)[1], by_name=True)
    with Meeting(place) as other, call(place, index=2, host="no-such-host.invalid") as lost:
        with pytest.raises(ValueError, match="ended"):
            lost.hear()
        assert other._called_from == ""


def test_one_that_comes_again_before_its_end_was_noticed_has_its_place():
    here = places(2)
    with Meeting(here[0]) as chief, call(here[0], token="before") as before:
        before.hear()
        with call(here[0], token="now") as now:
            now.say(ready=True)
            wait_for(lambda: chief._guests[1].ready, seconds=30)
            before.finish()
            with contextlib.suppress(ValueError):
                while True:  # until it is let go
                    before.hear()
            chief.ready()
            (start,) = results([chief])
    assert start.tokens == (chief.token, "now")


NO_WORDS = ["[]", "7", "null", "{}", '{"run": "", "index": []}', '{"run": "", "index": Infinity}', "[" * 9999]


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("words", NO_WORDS, ids=range(len(NO_WORDS)))
def test_what_no_launcher_would_say_is_passed_over(words):
    here = places(2)
    address, said = cluster.split(here[0].addresses[0]), f"{words}\n".encode()
    with socket.create_server(address) as server, Meeting(here[1]) as other:
        server.settimeout(10.0)
        for _ in range(2):  # it comes back
            connection, _ = server.accept()
            connection.sendall(GREETING + b"{}\n" + said)
        assert other.poll() is None
    with Meeting(here[0]) as chief:
        wait_for(lambda: watch.look(*address)[0] is watch.Seen.MEETS, seconds=30)
        with socket.create_connection(address) as connection:
            connection.settimeout(10.0)
            connection.sendall(said)
            while connection.recv(4096):  # until it is let go
                pass
        assert chief.poll() is None
