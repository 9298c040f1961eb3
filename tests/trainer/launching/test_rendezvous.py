"""Launchers meet before TensorFlow starts: all together, or those missing are named."""

import contextlib
import dataclasses
import socket
import threading
import time

import pytest

from canopy import cli
from trainer import cluster
from trainer.cluster import Place
from trainer.launching import watch
from trainer.launching.rendezvous import End, Meeting, Start
from trainer.launching.wire import GREETING


def places(workers):
    addresses = tuple(f"127.0.0.1:{port}" for port in cluster.free_ports(workers))
    return [Place(index, addresses) for index in range(workers)]


def results(meetings, seconds=10.0):
    """What each meeting came to, polled together."""
    deadline = time.monotonic() + seconds
    found = [None] * len(meetings)
    while None in found and time.monotonic() < deadline:
        found = [found[i] or meeting.poll() for i, meeting in enumerate(meetings)]
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("workers", [2, 5])
def test_all_start_together_when_the_last_one_is_ready(workers):
    with contextlib.ExitStack() as stack:
        meetings = [stack.enter_context(Meeting(place)) for place in places(workers)]
        for meeting in meetings[:-1]:
            meeting.ready()
        assert results(meetings, seconds=1.0) == [None] * workers
        meetings[-1].ready()
        found = results(meetings)
    assert found[0] == Start(tuple(meeting.token for meeting in meetings), meetings[0].place.addresses)
    assert found == [found[0]] * workers


def test_one_that_comes_late_is_waited_for():
    with contextlib.ExitStack() as stack:
        here = places(3)
        meetings = [stack.enter_context(Meeting(place)) for place in here[1:]]
        time.sleep(0.5)
        meetings.insert(0, stack.enter_context(Meeting(here[0])))
        for meeting in meetings:
            meeting.ready()
        assert None not in results(meetings)


def test_those_who_do_not_come_are_named_by_all():
    here = places(3)
    with Meeting(here[0]) as chief, Meeting(here[1]) as other:
        chief.ready()
        other.ready()
        assert results([chief, other], seconds=2.0) == [None, None]
        for meeting in (chief, other):
            assert meeting.missing() == f"worker 2 at {here[0].addresses[2]} (not there)"


def test_a_chief_that_does_not_come_is_named():
    here = places(2)
    with Meeting(here[1]) as other:
        time.sleep(0.5)
        assert other.missing() == f"worker 0 at {here[0].addresses[0]} (Connection refused)"


def test_a_name_that_does_not_resolve_yet_is_waited_for():
    place = Place(1, ("no-such-host.invalid:2222", f"127.0.0.1:{cluster.free_ports(1)[0]}"))
    with Meeting(place) as other:
        time.sleep(0.5)
        assert other.poll() is None
        assert "worker 0 at no-such-host.invalid:2222" in other.missing()


def named(name, index, run="this one"):
    """Places of two pods whose names are found where `name` says."""
    ports = cluster.free_ports(2)
    return Place(index, tuple(f"{name}:{port}" for port in ports), by_name=True, run=run)


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


def test_one_that_goes_away_again_is_waited_for():
    here = places(3)
    with Meeting(here[0]) as chief, Meeting(here[1]) as other:
        chief.ready()
        other.ready()
        with Meeting(here[2]) as third:
            third.ready()  # and its process ends before the chief looks
            time.sleep(0.5)
        time.sleep(0.5)
        assert "worker 2" in chief.missing()
        assert chief.poll() is None
        with Meeting(here[2]) as third:
            third.ready()
            assert None not in results([chief, other, third])


def test_a_chief_whose_process_still_trains_is_waited_for():
    """TensorFlow's server holds the port: it begins with HTTP/2 settings, which are no greeting."""
    here = places(2)
    server = socket.create_server(("127.0.0.1", cluster.split(here[0].addresses[0])[1]))

    def answer():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                connection.sendall(b"\x00\x00\x18\x04\x00\x00\x00\x00\x00")

    threading.Thread(target=answer, daemon=True).start()
    with Meeting(here[1]) as other:
        other.ready()
        time.sleep(0.6)
        assert other.poll() is None
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        with Meeting(here[0]) as chief:
            chief.ready()
            assert None not in results([chief, other])


def test_pods_that_count_their_number_differently_are_refused():
    here = places(2)
    three = Place(1, (*here[0].addresses, "127.0.0.1:1"))
    with Meeting(here[0]) as chief, Meeting(three) as other:
        chief.ready()
        found = results([other])[0]
        assert (found.code, chief.poll()) == (cli.EXIT_USER, None)
        assert "counts 3 workers and the chief 2" in found.why


def test_an_end_at_the_chief_is_told_to_all():
    here, end = places(3), End(cli.EXIT_USER, "error: the loss is nan")
    with contextlib.ExitStack() as stack:
        chief, *others = (stack.enter_context(Meeting(place)) for place in here)
        chief.tell_all(end, seconds=10.0)
        assert results(others) == [end, end]
        began = time.monotonic()
        for other in others:
            other.tell_all(end, seconds=10.0)  # who has it from the chief need not tell it back
        assert time.monotonic() - began < 5


def test_an_end_at_another_worker_reaches_all():
    here, end = places(3), End(cli.EXIT_USER, "error: no GPU")
    with contextlib.ExitStack() as stack:
        chief, second, third = (stack.enter_context(Meeting(place)) for place in here)
        second.tell_all(end, seconds=10.0)
        assert results([chief]) == [end]
        chief.tell_all(end, seconds=10.0)
        assert results([third]) == [end]


def test_one_that_cannot_hold_its_own_port_blames_no_other():
    here = places(2)
    with (
        socket.create_server(("", cluster.split(here[0].addresses[0])[1])) as taken,
        Meeting(here[0]) as chief,
    ):
        chief.ready()
        deadline = time.monotonic() + 10
        while "cannot hold" not in chief.missing() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert f"worker 0 cannot hold {here[0].addresses[0]} (" in chief.missing()
        taken.close()
        while "cannot hold" in chief.missing() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert chief.missing() == f"worker 1 at {here[1].addresses[1]} (not there)"


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
        deadline = time.monotonic() + 10
        while watch.look(*address)[0] is not watch.Seen.MEETS and time.monotonic() < deadline:
            time.sleep(0.02)
        with socket.create_connection(address) as connection:
            connection.settimeout(10.0)
            connection.sendall(said)
            while connection.recv(4096):  # until it is let go
                pass
        assert chief.poll() is None


def test_telling_gives_up_in_time():
    here = places(2)
    with Meeting(here[0]) as chief:
        began = time.monotonic()
        chief.tell_all(End(2, "nobody hears"), seconds=0.5)
        assert time.monotonic() - began < 2


def test_the_port_is_given_back_and_waited_for():
    here = places(2)
    holder = socket.create_server(("", cluster.split(here[0].addresses[0])[1]))
    with Meeting(here[0]) as chief, Meeting(here[1]) as other:
        chief.ready()
        other.ready()
        time.sleep(0.5)
        holder.close()
        assert None not in results([chief, other])
    for place in here:
        socket.create_server(("", cluster.split(place.addresses[place.index])[1])).close()
