"""When the next pod of a Job comes, after some have failed."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from infra.backoff import COUNTING, FAILURES, IGNORED, finished, waits
from tests.infra import made
from tests.infra.conftest import job
from tests.infra.playing import play

START = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
PER_WORKER = {"completions": 2, "parallelism": 2, "backoffLimitPerIndex": 6}
ALONE = {"completions": 1, "parallelism": 1, "backoffLimit": 3}


def at(seconds):
    return START + timedelta(seconds=seconds)


def text(seconds):
    return at(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def ended(seconds, index=None, before=0, ignored=0, phase="Failed", held=True):
    """A pod that ended then, the index's counts of failures before it as its annotations have them."""
    state = {"terminated": {"exitCode": 1, "finishedAt": text(seconds)}}
    annotations = {FAILURES: str(before)} | ({IGNORED: str(ignored)} if ignored else {})
    status = {"phase": phase, "containerStatuses": [{"name": "canopy", "state": state}]}
    name = f"train-{index}-{seconds}"
    finalizers = [COUNTING] if held else []
    return made.pod(status, index, name, uid=name, annotations=annotations, finalizers=finalizers)


def going(index=None, phase="Running"):
    return made.pod({"phase": phase}, index, f"train-{index}-on", uid=f"{index}-on")


def told(spec, pods, seconds, **status):
    return [str(wait) for wait in waits({"spec": spec, "status": status}, pods, at(seconds))]


def test_the_wait_doubles_with_each_failure_up_to_ten_minutes_from_the_end_of_the_last():
    for before, seconds in enumerate((10, 20, 40, 80, 160, 320, 600, 600)):
        (wait,) = waits({"spec": PER_WORKER}, [going(0), ended(100, 1, before)], at(104))
        assert (wait.worker, wait.failures, wait.seconds) == (1, before + 1, seconds - 4)


def test_it_is_said_with_worker_seconds_and_failures():
    assert told(PER_WORKER, [going(0), ended(0, 1, before=2)], 3) == [
        "the next pod of worker 1 comes in about 37 s: the Job controller backs off, 40 s after 3 failures"
    ]
    assert told(ALONE, [ended(0)], 2) == [
        "the next pod comes in about 8 s: the Job controller backs off, 10 s after a failure"
    ]


def test_failures_that_a_policy_ignores_count_for_the_wait():
    (wait,) = waits({"spec": PER_WORKER}, [ended(0, 0, before=1, ignored=3), going(1)], at(0))
    assert (wait.failures, wait.seconds) == (5, 160)


def test_each_worker_waits_for_itself_and_for_the_last_of_its_pods():
    pods = [ended(55, 1), ended(50, 0, 1), ended(0, 0)]
    assert [(w.worker, w.seconds) for w in waits({"spec": PER_WORKER}, pods, at(60))] == [(0, 10), (1, 5)]


def test_nothing_is_said_of_a_worker_that_has_a_pod_or_is_done_or_failed_for_good():
    assert not told(PER_WORKER, [ended(0, 0), going(0, "Pending"), going(1)], 1)
    assert not told(PER_WORKER, [ended(0, 0), ended(5, 0, phase="Succeeded"), going(1)], 6)
    assert not told(PER_WORKER, [ended(0, 0, held=False), going(1)], 1)


def test_without_a_limit_for_each_index_the_failures_of_all_add_up():
    spec = {"completions": 4, "parallelism": 2, "backoffLimit": 6}
    (wait,) = waits({"spec": spec}, [ended(0), ended(10), ended(12), going()], at(13))
    assert (wait.worker, wait.failures, wait.seconds) == (None, 3, 39)
    done = [ended(5, phase="Succeeded"), ended(10, phase="Succeeded")]
    (wait,) = waits({"spec": spec}, [ended(0), ended(8), *done, ended(12), going()], at(13))
    assert (wait.failures, wait.seconds) == (1, 9)
    assert not told(spec, [ended(0), going(), going(phase="Pending")], 1)
    assert not told(spec, [ended(0), going()], 1, succeeded=3)
    assert not told(spec, [], 1)


def test_a_work_queue_that_is_done_gets_no_more_pods():
    queue = {"parallelism": 2}
    assert told(queue, [ended(0), going()], 1)
    assert not told(queue, [ended(0), ended(-5, phase="Succeeded")], 1)


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ({"suspend": True}, {}),
        ({"managedBy": "kueue.x-k8s.io/multikueue"}, {}),
        ({"parallelism": 1}, {}),  # another index may come first
        ({"activeDeadlineSeconds": 15}, {"startTime": text(-10)}),
        ({}, {"conditions": [{"type": "Failed", "status": "True"}]}),
        ({}, {"conditions": [{"type": "FailureTarget", "status": "True"}]}),
    ],
)
def test_nothing_is_said_where_the_job_may_not_go_on_or_somebody_else_decides(spec, status):
    pods = [ended(0, 0)]
    assert told(PER_WORKER, pods, 1)
    assert not told(PER_WORKER | spec, pods, 1, **status)


@pytest.mark.parametrize("deadline", [{}, {"activeDeadlineSeconds": 25}])
def test_a_deadline_that_comes_after_the_pod_changes_nothing(deadline):
    assert told(PER_WORKER | deadline, [ended(0, 0)], 1, startTime=text(-10))


def test_a_wait_that_is_over_is_not_told_and_a_clock_that_is_behind_does_not_lengthen_it():
    assert not told(ALONE, [ended(0)], 11)
    assert "in about 10 s" in told(ALONE, [ended(0)], -300)[0]


def test_a_pod_ended_with_its_last_container_or_else_when_it_was_no_longer_ready_or_deleted():
    pod = ended(7)
    assert finished(pod) == at(7)
    stop = {"name": "proxy", "state": {"terminated": {"exitCode": 0, "finishedAt": text(9)}}}
    pod["status"]["initContainerStatuses"] = [stop]
    assert finished(pod) == at(7)
    pod["spec"]["initContainers"] = [{"name": "proxy", "restartPolicy": "Always"}]
    assert finished(pod) == at(9)
    pod["status"]["containerStatuses"][0]["state"] = {"running": {}}
    assert finished(pod) == finished(made.pod({"phase": "Failed"})) == START  # when it was made
    pod["metadata"] |= {"deletionTimestamp": text(60), "deletionGracePeriodSeconds": 30}
    assert finished(pod) == at(30)
    placed, unready = (
        {"type": name, "status": status, "lastTransitionTime": text(seconds)}
        for name, status, seconds in (("PodScheduled", "True", 1), ("Ready", "False", 20))
    )
    pod["status"]["conditions"] = [placed, unready]
    assert finished(pod) == at(20)


def per_worker(name):
    made = job(name, completions=2)
    made["spec"] |= {"backoffLimitPerIndex": 6}
    return made


def test_a_worker_whose_pod_is_held_back_is_told_once(server, submit, write):
    def fails_again(stage):
        chief, second = stage.pod(0), stage.pod(1, failures=1)
        stage.run(chief)
        stage.end(second, 1)
        stage.touch()
        time.sleep(9)
        third = stage.pod(1, failures=2)
        stage.run(third)
        stage.touch()
        time.sleep(1)
        stage.end(third)
        stage.end(chief)
        stage.complete()

    play(server, train=fails_again)
    done = submit(write("t.yaml", per_worker("train")))
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "backs off" in line]
    before, _, after = line.partition(" comes in about ")
    assert before == "job/train: the next pod of worker 1"
    seconds, _, why = after.partition(" s: ")
    assert 10 <= int(seconds) <= 18
    assert why == "the Job controller backs off, 20 s after 2 failures"


def test_no_pod_is_promised_by_a_job_that_a_failure_ends(server, submit, write):
    def mistaken(stage):
        chief, second = stage.pod(0), stage.pod(1)
        stage.run(chief)
        stage.end(second, 2, message="error: --data: no such folder")
        stage.touch()
        time.sleep(2)
        stage.fail("PodFailurePolicy", "Container canopy failed with exit code 2")

    play(server, train=mistaken)
    done = submit(write("t.yaml", per_worker("train")))
    assert done.returncode == 2
    assert "comes in about" not in done.stderr
