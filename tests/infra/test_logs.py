"""A log through lost connections: each line once and in order."""

import threading
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infra.cluster_api import UnreachableError
from infra.connection import connect
from infra.logs import DRAIN_SECONDS, Deduplicator, LogTail
from tests.infra.conftest import job
from tests.infra.made import pod
from tests.infra.playing import play
from tests.infra.store import RefusalError


def stamp(nanoseconds, trimmed):
    seconds, rest = divmod(nanoseconds, 10**9)
    fraction = f"{rest:09d}".rstrip("0") if trimmed else f"{rest:09d}"
    return f"2026-11-22T10:00:{seconds:02d}{'.' if fraction else ''}{fraction}Z"


@given(
    times=st.lists(st.integers(0, 5 * 10**9) | st.sampled_from([10**9, 10**9 + 1]), max_size=30).map(sorted),
    alike=st.booleans(),
    cuts=st.lists(st.integers(0, 30), max_size=6),
    trimmed=st.booleans(),
)
@example(times=[0, 0, 0], alike=True, cuts=[1], trimmed=False)
def test_however_often_a_log_is_cut_off_each_line_comes_once_and_in_order(times, alike, cuts, trimmed):
    texts = ["line" if alike else f"line {number}" for number in range(len(times))]
    lines = [f"{stamp(at, trimmed)} {text}" for at, text in zip(times, texts, strict=True)]
    told, passed_on = Deduplicator(), []
    for cut in [*cuts, len(lines)]:
        told.restart()
        since = (told.last or "")[:19]
        offered = [line for line in lines if line[:19] >= since]  # the API starts at a whole second
        passed_on += [text for text in map(told.fresh, offered[:cut]) if text is not None]
    assert passed_on == texts


def test_a_line_that_comes_after_one_stamped_later_is_passed_on_once():
    # stdout and stderr are stamped apart, before either is written
    lines = [
        f"{stamp(at, False)} {text}" for at, text in ((2, "a"), (1, "b"), (2, "c"), (10**9, "d"), (3, "e"))
    ]
    told = Deduplicator()
    assert [told.fresh(line) for line in lines[:3]] == ["a", "b", "c"]
    told.restart()
    assert [told.fresh(line) for line in lines] == [None, None, None, "d", "e"]
    told.restart()
    assert told.fresh(lines[3]) is None


def test_blanks_and_empty_lines_are_kept():
    told = Deduplicator()
    assert told.fresh("2026-11-22T10:00:00.5Z   two  blanks ") == "  two  blanks "
    assert told.fresh("2026-11-22T10:00:00.6Z ") == ""


@pytest.mark.parametrize(("status", "said"), [(400, 0), (401, 1), (403, 1), (404, 0)])
def test_a_log_that_is_not_to_be_had_is_not_waited_for(server, submit, write, status, said):
    server.refusals += [("get", "pods", RefusalError(status, "Refused", "no log"))] * 50
    play(server)
    began = time.monotonic()
    done = submit(write("t.yaml", job("train")), "--follow")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("may not be read: no log") == said
    assert time.monotonic() - began < DRAIN_SECONDS / 2


def test_a_log_whose_connection_breaks_goes_on_with_no_line_twice_or_lost(server, submit, write):
    server.cut_logs_after += [3, 0, 4, 5]

    def talks(stage):
        pod = stage.pod()
        stage.run(pod)
        for number in range(0, 40, 4):
            stage.say(pod, *(f"line {number + more}" for more in range(4)))  # four at one and the same time
            time.sleep(0.15)
        stage.end(pod)
        stage.complete()

    play(server, train=talks)
    done = submit(write("t.yaml", job("train")), "--follow")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:-1] == [f"line {number}" for number in range(40)]
    assert len(server.log_reads) > 4


def test_a_page_in_place_of_a_watch_or_a_log_is_passed_over_and_no_line_of_it_is_the_logs(
    server, submit, write
):
    server.paged = ["watch", "log"]

    def behind_a_proxy(stage):
        pod = stage.pod()
        stage.run(pod)
        stage.say(pod, "first")
        time.sleep(3)
        stage.say(pod, "last")
        stage.end(pod)
        stage.complete()

    play(server, train=behind_a_proxy)
    done = submit(write("t.yaml", job("train")), "--follow")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:-1] == ["first", "last"]
    assert not server.paged


LAST = f"{stamp(1, False)} the last word"


@pytest.mark.parametrize(
    ("rest", "over", "told"),
    [
        (LAST, True, [LAST]),
        (LAST, False, []),  # it may be the first part of a line
        ("unable to retrieve container logs for containerd://1", True, []),  # the kubelet's own
    ],
)
def test_what_follows_a_logs_last_line_end_is_a_line_once_the_container_has_ended(
    server, tmp_path, monkeypatch, rest, over, told
):
    config = server.kubeconfig(tmp_path / "kubeconfig")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(config))
    ended = {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {}}}]}
    server.store.put("pods", pod(ended, name="one"))
    server.logs["one"], server.log_rest = [(stamp(0, False), "first")], rest
    assert [*connect(None, None).log("one", "canopy", over=over)] == [f"{stamp(0, False)} first", *told]


@pytest.mark.parametrize("flags", [(), ("--follow",)])
def test_a_last_line_without_an_end_is_shown(server, submit, write, flags):
    server.log_rest = LAST

    def fails(stage):
        pod = stage.pod()
        stage.run(pod)
        stage.end(pod, 1)
        stage.fail()

    play(server, train=fails)
    done = submit(write("t.yaml", job("train")), *flags)
    assert done.returncode == 1
    assert (done.stdout if flags else done.stderr).count("the last word\n") == 1


class Readings:
    """A cluster whose log is read one time after the other."""

    def __init__(self, *readings):
        self.readings = list(readings)
        self.over = []

    def log(self, *_, over, **__):
        self.over.append(over)
        yield from self.readings.pop(0)()


def lines_of(*numbers):
    return [f"{stamp(number, False)} line {number}" for number in numbers]


@pytest.mark.parametrize("broken", [False, True])
def test_a_container_that_ends_while_its_log_is_read_is_read_once_more(monkeypatch, broken):
    monkeypatch.setattr("infra.logs.PAUSE_SECONDS", 0.01)

    def ends():
        began.set()
        yield from lines_of(1)
        tail.look(pod({"phase": "Succeeded"}, uid="1"))
        if broken:
            raise UnreachableError("cut off")

    told: list[str] = []
    began = threading.Event()
    cluster: Any = Readings(*([ends, ends] if broken else [ends]), lambda: lines_of(1, 2))
    tail = LogTail(cluster, pod({}, uid="1"), "canopy", told.append)
    tail.look(pod({"phase": "Running"}, uid="1"))
    assert began.wait(10)
    tail.finish()
    assert told == ["line 1", "line 2"]
    assert cluster.over == [*([False, True] if broken else [False]), True]
    assert not cluster.readings


def test_a_line_that_cannot_be_printed_is_an_error_when_the_log_ends_too():
    def full(_):
        raise OSError("the disk is full")

    cluster: Any = Readings(lambda: lines_of(1))
    tail = LogTail(cluster, pod({}, uid="1"), "canopy", full)
    tail.look(pod({"phase": "Running"}, uid="1"))
    with pytest.raises(OSError, match="the disk is full"):
        tail.finish()


def test_the_log_of_a_pod_that_is_gone_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("infra.logs.PAUSE_SECONDS", 0.01)
    told: list[str] = []
    cluster: Any = Readings(*[lambda: lines_of(1)] * 10_000)
    tail = LogTail(cluster, pod({}, uid="1"), "canopy", told.append)
    tail.look(pod({"phase": "Running"}, uid="1"))
    began = time.monotonic()
    tail.finish()
    assert time.monotonic() - began < DRAIN_SECONDS / 2
    assert told == ["line 1"]
