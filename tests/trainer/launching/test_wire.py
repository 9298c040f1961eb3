"""What launchers say to each other arrives whole or not at all; a port is held as long as it is wanted."""

import errno
import json
import socket
import threading
import time

import pytest

from tests.conftest import has_ipv6
from tests.trainer.surviving import wait_for
from trainer import cluster
from trainer.launching import wire
from trainer.launching.wire import Line, Port


@pytest.fixture
def sides():
    """Two lines, one at each end of a connection."""
    here, there = socket.socketpair()
    with Line(here) as mine, Line(there) as others:
        yield mine, others


@pytest.fixture
def raw():
    """A line, and the bare socket at its other end."""
    here, there = socket.socketpair()
    with Line(here) as line, there:
        yield line, there


def test_what_is_said_is_heard_in_order(sides):
    mine, others = sides
    for number in range(3):
        mine.say(number=number, text="Grüße\n")
    assert [others.hear() for _ in range(3)] == [{"number": i, "text": "Grüße\n"} for i in range(3)]


def test_threads_that_speak_at_once_do_not_mix_their_words(sides):
    mine, others = sides
    long = "x" * 900_000  # more than a connection takes at a time
    speakers = [threading.Thread(target=mine.say, kwargs={"who": i, "long": long}) for i in range(4)]
    for speaker in speakers:
        speaker.start()
    assert sorted(others.hear()["who"] for _ in speakers) == [0, 1, 2, 3]


def test_what_was_said_before_the_end_still_arrives(sides):
    mine, others = sides
    mine.say(last=True)
    mine.finish()
    assert others.hear() == {"last": True}
    with pytest.raises(ValueError, match="the connection ended"):
        others.hear()
    others.say(answer=1)  # the other way is open yet
    assert mine.hear() == {"answer": 1}


def test_a_line_that_is_cut_is_not_heard_even_where_it_makes_sense(raw):
    line, there = raw
    there.sendall(json.dumps({"workers": 12}).encode())
    there.close()
    with pytest.raises(ValueError, match="the connection ended"):
        line.hear()


def test_a_connection_ends_with_its_with():
    here, there = socket.socketpair()
    with there:
        there.settimeout(10)
        with Line(here):
            pass
        assert there.recv(1) == b""


def test_who_holds_the_port_is_known_by_the_first_words(sides, raw):
    mine, others = sides
    mine.greet(index=1)
    others.hear_greeting()
    line, there = raw
    there.sendall(b"HTTP/2 settings of TensorFlow's server\n")
    with pytest.raises(ValueError, match="still trains"):
        line.hear_greeting()


def test_a_silent_side_counts_as_gone(monkeypatch):
    monkeypatch.setattr(wire, "SILENCE_SECONDS", 0.1)
    here, there = socket.socketpair()
    with Line(here) as line, there, pytest.raises(TimeoutError):
        line.hear()


def test_closing_ends_what_waits_at_either_side(sides):
    mine, _ = sides
    ended = []

    def wait(line):
        try:
            line.hear()
        except (OSError, ValueError):
            ended.append(line)

    waiting = [threading.Thread(target=wait, args=(line,), daemon=True) for line in sides]
    for thread in waiting:
        thread.start()
    mine.close()
    for thread in waiting:
        thread.join(wire.SILENCE_SECONDS / 2)
    assert len(ended) == 2


@pytest.fixture
def port():
    """A port that tells every caller its own address; not open yet."""

    def serve(connection):
        with Line(connection) as line:
            line.say(host=line.own_host)

    made = Port(cluster.free_ports(1)[0], serve)
    yield made
    made.close()


def ask(number, host="127.0.0.1"):
    """What the port says to a caller; None where nobody holds it."""
    try:
        with Line(socket.create_connection((host, number), timeout=10)) as line:
            return line.hear()["host"]
    except OSError:
        return None


def test_each_side_is_told_the_address_by_which_it_was_reached(port):
    port.open()
    wait_for(lambda: ask(port._number) == "127.0.0.1")  # and not ::ffff:127.0.0.1
    if has_ipv6():
        assert ask(port._number, "::1") == "::1"


def test_a_port_is_waited_for_and_the_reason_is_known_meanwhile(port):
    with socket.create_server(("127.0.0.1", port._number)):
        port.open()
        wait_for(lambda: port.refused)
    wait_for(lambda: ask(port._number))
    assert port.refused == ""


@pytest.mark.parametrize(
    "lack",
    [
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ECONNABORTED, "Software caused connection abort"),
        RuntimeError("can't start new thread"),
    ],
)
def test_a_port_serves_again_once_strangers_have_left_files_and_threads_for_it(port, monkeypatch, lack):
    accept, failures = socket.socket.accept, [lack, lack]

    def starved(server):
        accepted = accept(server)
        if failures:
            accepted[0].close()
            raise failures.pop()
        return accepted

    monkeypatch.setattr(socket.socket, "accept", starved)
    port.open()
    wait_for(lambda: answered(port._number) == "127.0.0.1")
    assert failures == []


def answered(number):
    """As `ask`; None also where the caller is dropped."""
    try:
        return ask(number)
    except ValueError:
        return None


def test_a_closed_port_is_free_for_the_next(port):
    port.open()
    wait_for(lambda: ask(port._number))
    time.sleep(0.2)  # by then it waits for the next caller, who would free it, too
    port.close()
    socket.create_server(("127.0.0.1", port._number)).close()  # at once: nobody need call for it to be let go


def test_a_port_that_is_closed_before_it_could_be_held_stays_free(port):
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", port._number)):
        port.open()
        wait_for(lambda: port.refused)
        port.close()
    wait_for(lambda: before.issuperset(threading.enumerate()))  # nobody tries any more
    assert ask(port._number) is None
