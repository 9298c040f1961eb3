"""How long `infra.submit` waits for what, and what it tells how often: on a clock that the test turns."""

import pytest

from infra import following
from infra.cluster_api import RefusedError, UnreachableError
from infra.following import Follower, UnfinishedError
from infra.screen import Screen
from infra.submit import _parse
from tests.infra.conftest import job
from tests.infra.made import pod

NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


class Played:
    """A cluster that gives a Job's states one after the other, ten seconds between two."""

    step = 10.0

    def __init__(self, monkeypatch, *states):
        self.states, self.now, self.slept = list(states), 0.0, 0
        self.logs_read, self.watched_from = [], []
        monkeypatch.setattr(following, "time", self)

    def monotonic(self):
        return 1_000 + self.now  # a clock may begin anywhere

    def sleep(self, seconds):
        self.slept += seconds

    def get(self, _):
        self.now += self.step
        status = self.states.pop(0) if self.states else {}
        if status is None:
            raise UnreachableError("no answer")
        metadata = {"name": "train", "uid": "1", "resourceVersion": str(self.now)}
        return {**job("train"), "metadata": metadata, "status": status}

    def job_changes(self, seen, _):
        self.watched_from.append(seen["metadata"]["resourceVersion"])
        return ()

    def pods(self, _):
        return []

    def events(self, _):
        return []

    def log(self, *of, tail, over):
        assert over
        self.logs_read.append((*of, tail))
        return ["2026-11-22T10:00:00Z its last word"]


DONE = {"conditions": [{"type": "Complete", "status": "True"}]}


def wait(cluster, *flags):
    train = {**job("train"), "metadata": {"name": "train", "uid": "1"}}
    return Follower(cluster, Screen(), _parse(["t.yaml", *flags])).wait(train)


def test_a_cluster_is_given_up_after_five_minutes_of_silence_in_one_piece(monkeypatch, capsys):
    cluster = Played(monkeypatch, {}, *[None] * 29, {}, *[None] * 29, DONE)
    assert wait(cluster) == 610
    assert cluster.slept == 58
    assert "the cluster has not answered for 290 s (no answer): trying again" in capsys.readouterr().err
    with pytest.raises(UnfinishedError, match="the same command follows it again") as end:
        wait(Played(monkeypatch, {}, *[None] * 30, DONE))
    assert end.value.code == 75


def test_a_job_has_all_the_time_that_it_takes_unless_a_timeout_is_named(monkeypatch):
    assert wait(Played(monkeypatch, *[{}] * 10_000, DONE)) == 100_010
    assert wait(Played(monkeypatch, *[{}] * 5, DONE), "--timeout", "60") == 60
    with pytest.raises(UnfinishedError, match=r"has not ended after 60 s \(--timeout\)") as end:
        wait(Played(monkeypatch, *[{}] * 6, DONE), "--timeout", "60")
    assert end.value.code == 75


def test_where_each_watch_ends_at_once_the_cluster_is_asked_no_more_than_once_a_second(monkeypatch):
    cluster = Played(monkeypatch, *[{}] * 5, DONE)  # as behind a proxy that answers with a page
    cluster.step = 0.3
    wait(cluster)
    assert cluster.slept == 5
    cluster = Played(monkeypatch, *[{}] * 5, DONE)
    cluster.step = 1.0
    wait(cluster)
    assert not cluster.slept


def test_a_watch_begins_where_the_job_was_seen_last(monkeypatch):
    cluster = Played(monkeypatch, {}, {}, DONE)
    wait(cluster)
    assert cluster.watched_from == ["10.0", "20.0", "30.0"]


@pytest.mark.parametrize("of_pod", [False, True])
def test_what_waiting_may_mend_is_waited_for_beyond_the_patience(monkeypatch, capsys, of_pod):
    cluster = Played(monkeypatch, *[{}] * 99, DONE)
    quota = {"reason": "FailedCreate", "message": "exceeded quota: gpus"}
    room = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": NO_GPU}
    if of_pod:
        waits = pod({"phase": "Pending", "conditions": [room]}, uid="2")
        monkeypatch.setattr(cluster, "pods", lambda _: [waits])
    else:
        monkeypatch.setattr(cluster, "events", lambda _: [quota])
    assert wait(cluster) == 1000
    assert ("no node has a free GPU" if of_pod else "quota has no room") in capsys.readouterr().err


def stuck(name, message):
    waiting = {"reason": "ImagePullBackOff", "message": message}
    container = {"name": "canopy", "image": "canopy:0.1.0", "state": {"waiting": waiting}}
    return pod({"phase": "Pending", "containerStatuses": [container]}, name=name, uid=name)


def test_a_trouble_is_told_once_of_each_pod_however_its_wording_changes(monkeypatch, capsys):
    cluster = Played(monkeypatch, {}, {}, {}, DONE)
    monkeypatch.setattr(
        cluster, "pods", lambda _: [stuck(name, f"try again in {cluster.now} s") for name in ("a", "b")]
    )
    wait(cluster)
    shown = capsys.readouterr().err
    for name in ("a", "b"):
        assert shown.count(f"pod {name} waits: the image canopy:0.1.0 cannot be pulled") == 1


def test_patience_is_five_minutes_of_the_same_trouble_unless_it_is_named(monkeypatch):
    for flags, given_up in ((), 330), (("--patience", "60"), 90), (("--patience", "0"), 10):
        cluster = Played(monkeypatch, *[{}] * 99)
        # the first time it is over at once
        monkeypatch.setattr(cluster, "pods", lambda _, c=cluster: [stuck("a", "")] if c.now != 20 else [])
        with pytest.raises(UnfinishedError, match="--patience") as end:
            wait(cluster, *flags)
        assert (cluster.now, end.value.code) == (given_up, 2)


@pytest.mark.parametrize(
    ("count", "more"), [(3, ""), (4, ", 1 more pods likewise"), (6, ", 3 more pods likewise")]
)
def test_the_last_lines_of_three_failed_pods_are_shown_of_the_container_that_counts(
    monkeypatch, capsys, count, more
):
    cluster = Played(monkeypatch, {"conditions": [{"type": "Failed", "status": "True"}]})
    counts = {"kubectl.kubernetes.io/default-container": "sidecar"}
    failed = [pod({"phase": "Failed"}, name=str(n), uid=str(n), annotations=counts) for n in range(count)]
    monkeypatch.setattr(
        cluster, "pods", lambda _: [pod({"phase": "Running"}, name="runs", uid="runs"), *failed]
    )
    with pytest.raises(UnfinishedError, match=f"^job/train failed{more}$"):
        wait(cluster)
    assert cluster.logs_read == [(str(n), "sidecar", 20) for n in range(3)]
    assert capsys.readouterr().err.count("    its last word\n") == 3


def ended(index, hour, code):
    container = {"name": "canopy", "state": {"terminated": {"exitCode": code, "reason": "Error"}}}
    status = {"phase": "Failed", "containerStatuses": [container]}
    name = f"{index}-{hour}"
    return pod(status, index, name=name, uid=name, created=f"2026-11-22T{hour}:00:00Z")


@pytest.mark.parametrize(
    ("last", "code", "shown"),
    [
        ([("14", 1), ("15", 1), ("16", 1)], 1, ["1-16", "1-15", "1-14"]),
        ([("15", 1), ("16", 2)], 2, ["1-16", "1-15", "0-13"]),
        ([("16", 75)], 75, ["1-16", "0-13", "0-12"]),
    ],
)
def test_of_a_jobs_failures_those_that_ended_it_are_shown_first(monkeypatch, last, code, shown):
    cluster = Played(monkeypatch, {"conditions": [{"type": "Failed", "status": "True"}]})
    not_counted = [ended(0, hour, 75) for hour in ("10", "11", "12", "13")]
    pods = [*not_counted, *(ended(1, hour, each) for hour, each in last)]
    monkeypatch.setattr(cluster, "pods", lambda _: pods)
    with pytest.raises(UnfinishedError) as end:
        wait(cluster)
    assert end.value.code == code
    assert [name for name, *_ in cluster.logs_read] == shown


def test_the_claim_that_all_pods_wait_for_is_asked_for_once_a_look(monkeypatch, capsys):
    cluster = Played(monkeypatch, {}, {}, DONE)
    of_job, asked = cluster.get, []

    def get(item):
        if item["kind"] != "PersistentVolumeClaim":
            return of_job(item)
        asked.append(item["metadata"]["name"])
        return {**item, "status": {"phase": "Pending"}}

    def events(of):
        return [{"reason": "Provisioning", "message": "on its way"}] if "kind" in of else []

    monkeypatch.setattr(cluster, "get", get)
    monkeypatch.setattr(cluster, "events", events)
    waiting = [pod({"phase": "Pending"}, index, name=f"train-{index}", uid=str(index)) for index in range(8)]
    monkeypatch.setattr(cluster, "pods", lambda _: waiting)
    wait(cluster)
    assert asked == ["canopy-data"] * 2
    assert capsys.readouterr().err.count("canopy-data is not bound to a volume yet: on its way") == 8


@pytest.mark.parametrize("why", [UnreachableError("no answer"), RefusedError(404, "pods not found", ())])
def test_last_lines_that_are_not_to_be_had_change_nothing_about_how_a_job_ended(monkeypatch, capsys, why):
    def log(*_, **__):
        raise why

    cluster = Played(monkeypatch, {"conditions": [{"type": "Failed", "status": "True"}]})
    monkeypatch.setattr(cluster, "pods", lambda _: [pod({"phase": "Failed"}, name="a", uid="a")])
    monkeypatch.setattr(cluster, "log", log)
    with pytest.raises(UnfinishedError, match=r"^job/train failed$"):
        wait(cluster)
    assert "pod a: it failed" in capsys.readouterr().err


def test_why_no_pod_takes_the_place_of_one_that_has_ended_is_told(monkeypatch, capsys):
    cluster = Played(monkeypatch, {}, DONE)
    monkeypatch.setattr(cluster, "pods", lambda _: [pod({"phase": "Failed"}, name="a", uid="a")])
    quota = {"reason": "FailedCreate", "message": "exceeded quota: gpus"}
    monkeypatch.setattr(cluster, "events", lambda _: [quota])
    wait(cluster)
    assert "quota has no room for its pods" in capsys.readouterr().err
