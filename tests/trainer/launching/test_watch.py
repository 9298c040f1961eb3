"""Who is gone is noticed within seconds, and who is busy is not."""

import contextlib
import itertools
import socket
import threading
import time

import pytest

from tests.trainer.surviving import wait_for
from trainer import cluster
from trainer.cluster import Place
from trainer.launching import watch
from trainer.launching.rendezvous import Meeting, Start
from trainer.launching.watch import Seen, Watch, look

SETTINGS = b"\x00\x00\x18\x04\x00\x00\x00\x00\x00"  # what TensorFlow's server begins with


@contextlib.contextmanager
def serving(words, port=0):
    """A server that says `words` to whoever connects; None: it accepts, and never answers."""
    server = socket.create_server(("127.0.0.1", port))
    kept = []

    def answer():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                kept.append(connection)
                if words is not None:
                    connection.sendall(words)

    threading.Thread(target=answer, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        for each in kept:
            each.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(watch, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(watch, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(watch, "SILENCE_SECONDS", 0.8)
    monkeypatch.setattr(watch, "START_SECONDS", 1.0)


def watching(port, token="now", host="127.0.0.1"):
    place = Place(0, ("127.0.0.1:1", f"{host}:{port}"))
    return Watch(place, Start(("own", token), (place.addresses[0], f"127.0.0.1:{port}")))


def lost_within(watched, seconds):
    deadline = time.monotonic() + seconds
    while not watched.lost() and time.monotonic() < deadline:
        time.sleep(0.02)
    return watched.lost()


def test_a_look_tells_training_from_meeting_from_nothing():
    with serving(SETTINGS) as port:
        assert look("127.0.0.1", port) == (Seen.TRAINS, "")
    assert look("127.0.0.1", port) == (Seen.CLOSED, "")
    with serving(None) as port:
        assert look("127.0.0.1", port) == (Seen.SILENT, "")
    place = Place(0, tuple(f"127.0.0.1:{port}" for port in cluster.free_ports(2)))
    with Meeting(place) as meeting:
        time.sleep(0.2)
        _, port = cluster.split(place.addresses[0])
        assert look("127.0.0.1", port) == (Seen.MEETS, meeting.token)


def test_a_look_at_what_is_no_launcher_and_no_server_of_tensorflows_tells_too():
    for words in (b"canopy \n", b"canopy [7]\n", b"canopy {}\n"):
        with serving(words) as port:
            assert look("127.0.0.1", port) == (Seen.MEETS, "")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def let_go():
            server.accept()[0].close()

        threading.Thread(target=let_go, daemon=True).start()
        assert look("127.0.0.1", server.getsockname()[1]) == (Seen.CLOSED, "")


def test_one_that_trains_is_there():
    with serving(SETTINGS) as port:
        before = set(threading.enumerate())
        with watching(port) as watched:
            assert lost_within(watched, 1.5) == ""
        wait_for(lambda: before.issuperset(threading.enumerate()))  # nobody looks at it any more


def test_one_whose_process_ended_is_gone():
    with serving(SETTINGS) as port, watching(port) as watched:
        time.sleep(0.3)
        still = lost_within(watched, 0.1)
    assert still == ""
    with watching(port) as watched:
        assert "nobody listens" in lost_within(watched, 3.0)


def test_a_port_that_refuses_for_once_is_no_loss(monkeypatch):
    """Its backlog may be full."""
    seen = itertools.cycle([Seen.TRAINS, Seen.CLOSED])
    monkeypatch.setattr(watch, "look", lambda *_: (next(seen), ""))
    with watching(1) as watched:
        assert lost_within(watched, 0.6) == ""


def test_one_that_was_never_there_gets_time_to_start():
    port = cluster.free_ports(1)[0]
    with watching(port) as watched:
        assert lost_within(watched, 0.6) == ""
        with serving(SETTINGS, port):
            assert lost_within(watched, 1.0) == ""


def test_one_that_meets_anew_is_gone_at_once():
    with serving(b'canopy {"token": "later"}\n') as port, watching(port) as watched:
        assert "its launcher waits" in lost_within(watched, 0.5)


def test_one_that_has_not_left_our_meeting_yet_is_there():
    with serving(b'canopy {"token": "now"}\n') as port, watching(port) as watched:
        assert lost_within(watched, 0.5) == ""
        assert "its launcher waits" in lost_within(watched, 2.0)


def test_a_frozen_one_is_gone_after_a_while():
    with serving(None) as port, watching(port) as watched:
        assert lost_within(watched, 0.5) == ""
        assert "does not answer" in lost_within(watched, 3.0)


def test_one_is_there_that_did_not_answer_while_this_process_was_paused(monkeypatch):
    seen = [Seen.SILENT]

    def look_through_a_pause(*_):
        if seen:
            time.sleep(1.0)  # beyond what counts as silence
        return (seen.pop() if seen else Seen.TRAINS), ""

    monkeypatch.setattr(watch, "look", look_through_a_pause)
    with watching(1) as watched:
        assert lost_within(watched, 1.5) == ""


def test_a_name_that_gives_another_ip_address_once_there_is_no_answer_has_moved(monkeypatch):
    answers = {"127.0.0.1"}
    monkeypatch.setattr(watch, "_resolve", lambda *_, **__: set(answers))
    monkeypatch.setattr(watch, "SILENCE_SECONDS", 60.0)
    with serving(None) as port, watching(port, host="worker") as watched:
        assert lost_within(watched, 0.8) == ""
        answers.clear()
        assert "stands for another machine now" in lost_within(watched, 3.0)


def test_a_name_server_that_is_behind_makes_nobody_move(monkeypatch):
    answers = {"10.0.0.9"}  # of the pod in whose place this one came
    monkeypatch.setattr(watch, "_resolve", lambda *_, **__: set(answers))
    monkeypatch.setattr(watch, "SILENCE_SECONDS", 60.0)
    with serving(None) as port, watching(port, host="worker") as watched:
        assert lost_within(watched, 0.8) == ""
        answers.clear()
        answers.add("127.0.0.1")
        assert lost_within(watched, 0.8) == ""


def test_nobody_is_missed_after_the_last_step():
    with watching(cluster.free_ports(1)[0]) as watched:
        watched.stop()
        assert lost_within(watched, 1.5) == ""
    with serving(b'canopy {"token": "later"}\n') as port, watching(port) as watched:
        assert lost_within(watched, 3.0)
        watched.stop()
        assert watched.lost() == ""


def test_a_name_that_is_gone_is_told_from_a_name_server_that_is_down(monkeypatch):
    def answers(number):
        def ask(*_):
            raise socket.gaierror(number, "")

        monkeypatch.setattr(socket, "getaddrinfo", ask)

    answers(socket.EAI_NONAME)
    assert watch._resolve("worker", otherwise={"10.0.0.1"}) == set()
    answers(socket.EAI_AGAIN)
    assert watch._resolve("worker", otherwise={"10.0.0.1"}) == {"10.0.0.1"}
