"""Launchers meet before TensorFlow starts: all together, or those missing are named."""

import contextlib
import dataclasses
import socket
import sys
import threading
import time

import pytest

from canopy import cli
from tests.trainer.launching.meeting import call, named, places, results
from tests.trainer.surviving import wait_for
from trainer import cluster
from trainer.cluster import Place
from trainer.launching import rendezvous, wire
from trainer.launching.rendezvous import End, Meeting, Start
from trainer.launching.wire import Line


@pytest.mark.parametrize(("workers", "last"), [(2, 0), (2, 1), (5, 4)])
def test_all_start_together_when_the_last_one_is_ready(workers, last):
    with contextlib.ExitStack() as stack:
        meetings = [stack.enter_context(Meeting(place)) for place in places(workers)]
        for meeting in meetings[:last] + meetings[last + 1 :]:
            meeting.ready()
        assert results(meetings, seconds=1.0) == [None] * workers
        meetings[last].ready()
        found = results(meetings)
    assert found[0] == Start(tuple(meeting.token for meeting in meetings), meetings[0].place.addresses)
    assert found == [found[0]] * workers


def test_who_waits_says_so_again_and_again_and_at_last_that_it_is_ready(monkeypatch):
    monkeypatch.setattr(rendezvous, "BEAT_SECONDS", 0.05)
    here = places(2)
    with Meeting(here[0]), call(here[0]) as chief:
        assert [chief.hear() for _ in range(3)] == [{"missing": {}}] * 3
    with (
        socket.create_server(cluster.split(here[0].addresses[0])) as server,
        Meeting(here[1]) as other,
        Line(server.accept()[0]) as guest,
    ):
        guest.greet()
        assert guest.hear()["index"] == 1
        assert [guest.hear() for _ in range(3)] == [{"ready": False}] * 3
        other.ready()
        wait_for(lambda: guest.hear() == {"ready": True}, seconds=30)


def test_where_one_is_gone_when_told_to_start_the_others_meet_anew():
    here = places(3)
    with Meeting(here[0]) as chief, Meeting(here[2]) as third:
        with Meeting(here[1]) as other:
            for meeting in (chief, other, third):
                meeting.ready()
            wait_for(lambda: [guest.ready for guest in chief._guests.values()] == [True, True], seconds=30)
            token = chief.token
            with chief._changed:  # before it is noticed
                chief._guests[2].line.finish()
                assert chief.poll() is None
            (started,) = results([other])
            assert started.tokens[0] == token != chief.token  # so it finds that the chief is at another
        wait_for(lambda: "worker 1 at " in chief.missing(), seconds=30)
        with Meeting(here[1]) as other:
            other.ready()
            assert None not in results([chief, other, third])


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


@pytest.mark.parametrize("left", [0, 1])
def test_one_that_leaves_is_missed_without_delay_and_nothing_of_it_comes_again(left, monkeypatch):
    monkeypatch.setattr(wire, "SILENCE_SECONDS", 600.0)
    place = named("127.0.0.1", 0)
    meetings = [Meeting(dataclasses.replace(place, index=index)) for index in range(2)]
    with meetings[1 - left] as other:
        before = set(threading.enumerate())
        with meetings[left]:
            wait_for(lambda: "nobody is missing" in other.missing(), seconds=30)
        wait_for(lambda: f"worker {left} at " in other.missing(), seconds=30)
        wait_for(lambda: before.issuperset(threading.enumerate()), seconds=30)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse where this one does not answer")
def test_a_chief_that_does_not_answer_at_its_address_is_looked_for_again(monkeypatch):
    monkeypatch.setattr(rendezvous, "CONNECT_SECONDS", 0.2)
    here = places(2)
    address = cluster.split(here[0].addresses[0])
    with contextlib.ExitStack() as stack:
        with socket.create_server(address, backlog=0), socket.create_connection(address):  # that is all
            other = stack.enter_context(Meeting(here[1]))
            wait_for(lambda: "timed out" in other.missing(), seconds=10)
        chief = stack.enter_context(Meeting(here[0]))
        chief.ready()
        other.ready()
        assert None not in results([chief, other])


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


def test_an_end_at_the_chief_is_told_to_all():
    here, end = places(3), End(cli.EXIT_USER, "error: the loss is nan")
    with contextlib.ExitStack() as stack:
        chief, *others = (stack.enter_context(Meeting(place)) for place in here)
        began = time.monotonic()
        chief.tell_all(end, seconds=60.0)
        assert results(others) == [end, end]
        for other in others:
            other.tell_all(end, seconds=60.0)  # who has it from the chief need not tell it back
        assert time.monotonic() - began < 30


def test_an_end_at_another_worker_reaches_all():
    here, end = places(3), End(cli.EXIT_USER, "error: no GPU")
    with contextlib.ExitStack() as stack:
        chief, second, third = (stack.enter_context(Meeting(place)) for place in here)
        wait_for(lambda: "worker 1 at " not in chief.missing(), seconds=30)
        began = time.monotonic()
        second.tell_all(end, seconds=60.0)
        assert results([chief]) == [end]
        chief.tell_all(end, seconds=60.0)  # who has told it knows it
        assert results([third]) == [end]
        assert time.monotonic() - began < 30


def test_an_end_is_told_until_the_chief_has_heard_it():
    here, end = places(2), End(cli.EXIT_USER, "error: no GPU")
    with socket.create_server(cluster.split(here[0].addresses[0])) as server, Meeting(here[1]) as other:
        telling = threading.Thread(target=other.tell_all, args=(end, 60.0), daemon=True)
        telling.start()
        wait_for(lambda: other._last_words, seconds=30)
        for hears in (False, True):
            with Line(server.accept()[0]) as chief:
                assert telling.is_alive()
                chief.greet()
                assert chief.hear()["why"] == end.why
                if hears:
                    chief.say(heard=True)
                    telling.join(30)
        assert not telling.is_alive()


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
