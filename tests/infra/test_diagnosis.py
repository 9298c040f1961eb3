"""What statuses mean, in words."""

import pytest

from canopy import cli
from infra import diagnosis
from infra.following import chief_of, container_of


def pod(status, index=None, name="train-0-abcde", created="2026-11-22T10:00:00Z", **metadata):
    labels = {} if index is None else {"batch.kubernetes.io/job-completion-index": str(index)}
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "canopy-data"}}]
    return {
        "metadata": {"name": name, "labels": labels, "creationTimestamp": created, **metadata},
        "spec": {"containers": [{"name": "canopy"}, {"name": "sidecar"}], "volumes": volumes},
        "status": status,
    }


def unschedulable(message):
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return pod({"phase": "Pending", "conditions": [condition]})


@pytest.mark.parametrize(
    ("message", "words", "hopeless"),
    [
        ("0/2 nodes are available: 2 Insufficient nvidia.com/gpu.", "no node has a free GPU", False),
        (
            "0/2 nodes are available: 1 Insufficient cpu, 1 Insufficient memory.",
            "enough cpu and memory",
            False,
        ),
        ("pod has unbound immediate PersistentVolumeClaims.", "canopy-data is not bound", False),
        ('persistentvolumeclaim "canopy-data" not found', "its claim canopy-data is not there", True),
        ("1 node(s) had untolerated taint {spot: true}.", "a taint that it does not tolerate", False),
        ("2 node(s) didn't match Pod's node affinity/selector.", "the labels that it asks for", False),
        ("something new", "no node takes it: something new", False),
    ],
)
def test_why_no_node_takes_a_pod(message, words, hopeless):
    trouble = diagnosis.pod_trouble(unschedulable(message), ())
    assert trouble
    assert words in str(trouble)
    assert message in str(trouble)
    assert trouble.hopeless is hopeless


@pytest.mark.parametrize(
    ("code", "reason", "words", "verdict"),
    [
        (1, "Error", "a bug", cli.EXIT_BUG),
        (2, "Error", "a mistake in its flags or its input", cli.EXIT_USER),
        (75, "Error", "another worker was lost", cli.EXIT_PEER_LOST),
        (127, "ContainerCannotRun", "not in the image", cli.EXIT_USER),
        (137, "OOMKilled", "more memory than its limit", cli.EXIT_BUG),
        (137, "Error", "killed by SIGKILL", cli.EXIT_BUG),
        (139, "Error", "killed by SIGSEGV", cli.EXIT_BUG),
        (143, "Error", "stopped by SIGTERM", cli.EXIT_PEER_LOST),
        (200, "Error", "exit code 200", cli.EXIT_BUG),
    ],
)
def test_what_an_exit_code_means(code, reason, words, verdict):
    end = diagnosis.container_end({"exitCode": code, "reason": reason})
    assert words in end.sentence
    assert end.code == verdict
    assert not end.succeeded


def test_a_containers_last_word_is_told():
    end = diagnosis.container_end({"exitCode": 2, "message": "starting\nerror: --data: no such folder\n"})
    assert end.sentence.endswith('it said "error: --data: no such folder"')


@pytest.mark.parametrize("reason", [*diagnosis.DISRUPTIONS, "SomethingNew"])
def test_a_disrupted_pod_is_worth_another_try_whatever_its_exit_code(reason):
    killed = {"name": "canopy", "state": {"terminated": {"exitCode": 137, "reason": "Error"}}}
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "why"}
    end = diagnosis.pod_end(
        pod({"phase": "Failed", "conditions": [condition], "containerStatuses": [killed]})
    )
    assert end
    assert end.code == cli.EXIT_PEER_LOST
    assert "why" in end.sentence


def test_an_evicted_pod_says_what_its_node_was_short_of():
    end = diagnosis.pod_end(
        pod({"phase": "Failed", "reason": "Evicted", "message": "The node was low on: memory."})
    )
    assert end
    assert "The node was low on: memory." in end.sentence
    assert end.code == cli.EXIT_PEER_LOST


def test_a_container_that_ends_again_and_again_says_how_it_ended_last():
    status = {
        "name": "canopy",
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
    }
    trouble = diagnosis.pod_trouble(pod({"phase": "Running", "containerStatuses": [status]}), ())
    assert "again and again, the last time with exit code 1" in str(trouble)


@pytest.mark.parametrize("phase", ["Running", "Succeeded"])
def test_a_pod_that_runs_or_is_done_has_no_trouble(phase):
    assert diagnosis.pod_trouble(pod({"phase": phase}), ()) is None
    assert diagnosis.pod_end(pod({"phase": phase})) is None


def test_a_suspended_job_says_that_somebody_holds_it():
    trouble = diagnosis.job_trouble({"metadata": {"name": "t"}, "spec": {"suspend": True}}, ())
    assert trouble
    assert "suspended" in str(trouble)
    assert not trouble.hopeless


@pytest.mark.parametrize(
    ("codes", "whole"),
    [((), 1), ((75, 75), 75), ((75, 2), 2), ((1, 75), 1), ((1, 2), 2)],
)
def test_a_mistake_counts_before_a_bug_and_a_bug_before_a_lost_peer(codes, whole):
    assert diagnosis.verdict([diagnosis.End(False, "", code) for code in codes]) == whole


def test_the_chief_is_the_newest_pod_of_index_0():
    old = pod({}, 0, "old", "2026-11-22T10:00:00Z")
    new = pod({}, 0, "new", "2026-11-22T10:05:00Z")
    other = pod({}, 1, "other", "2026-11-22T10:09:00Z")
    assert chief_of([new, other, old]) is new
    assert chief_of([other]) is None
    assert container_of(old) == "canopy"
    named = pod({}, annotations={"kubectl.kubernetes.io/default-container": "sidecar"})
    assert container_of(named) == "sidecar"


def test_how_a_job_stands_counts_its_pods():
    job = {"spec": {"completions": 4}, "status": {"succeeded": 1}}
    pods = [pod({"phase": phase}) for phase in ("Succeeded", "Running", "Running", "Pending")]
    assert diagnosis.standing(job, pods) == "pods: 1 of 4 done, 2 running, 1 waiting"
