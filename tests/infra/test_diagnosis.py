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
        ("1 node(s) had volume node affinity conflict.", "no node that reaches its volume", False),
        ("1 node(s) didn't match PersistentVolume's node affinity.", "reaches its volume", False),
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
    ("message", "words", "hopeless"),
    [
        (
            'pods "train-x" is forbidden: exceeded quota: compute, requested: cpu=8',
            "quota has no room",
            False,
        ),
        ('pods "train-x" is forbidden: failed quota: compute: must specify cpu', "wants limits", True),
        ('pods "train-x" is forbidden: nobody may', "the cluster forbids its pods", True),
        ('admission webhook "lab" denied the request: no', "an admission webhook refuses", True),
        ("something new", "its pods cannot be created", True),
    ],
)
def test_why_a_job_has_no_pods_is_what_was_said_last(message, words, hopeless):
    told = ("FailedCreate", "an earlier one"), ("FailedCreate", message), ("SomethingElse", "a later one")
    events = [{"reason": reason, "message": text} for reason, text in told]
    trouble = diagnosis.job_trouble({"metadata": {"name": "train"}, "spec": {}}, events)
    assert trouble
    assert words in trouble.what
    assert trouble.detail == message
    assert trouble.hopeless is hopeless


def test_pods_that_could_be_created_after_all_are_no_trouble_any_more():
    events = [{"reason": "FailedCreate", "message": "exceeded quota"}, {"reason": "SuccessfulCreate"}]
    assert diagnosis.job_trouble({"metadata": {"name": "train"}, "spec": {}}, events) is None


@pytest.mark.parametrize("kind", ["containerStatuses", "initContainerStatuses"])
@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("CreateContainerConfigError", "its container cannot be started"),
        ("InvalidImageName", "the image canopy:0.1.0 cannot be pulled"),
    ],
)
def test_a_container_that_cannot_start_is_not_mended_by_waiting(kind, reason, words):
    waiting = {"reason": reason, "message": 'secret "key" not found'}
    status = {"name": "canopy", "image": "canopy:0.1.0", "state": {"waiting": waiting}}
    trouble = diagnosis.pod_trouble(pod({"phase": "Pending", kind: [status]}), ())
    assert trouble == diagnosis.Trouble(words, 'secret "key" not found', hopeless=True)


@pytest.mark.parametrize(
    ("reason", "message", "words", "hopeless"),
    [
        ("FailedMount", 'configmap "x" not found', "a volume of it cannot be mounted", True),
        ("FailedMount", "driver name x not found in the list of", "a volume of it cannot be mounted", False),
        ("FailedAttachVolume", "Multi-Attach error", "a volume of it cannot be mounted", False),
        ("FailedCreatePodSandBox", "no address left", "its network cannot be set up", False),
    ],
)
def test_a_pod_that_waits_for_a_volume_or_a_network_says_what_was_said_last(reason, message, words, hopeless):
    events = [{"reason": "FailedMount", "message": "an earlier one"}, {"reason": reason, "message": message}]
    assert diagnosis.pod_trouble(pod({"phase": "Pending"}), events) == diagnosis.Trouble(
        words, message, hopeless
    )


def test_a_volume_that_was_mounted_after_all_is_no_trouble_while_the_image_is_pulled():
    mount = {"reason": "FailedMount", "message": 'configmap "x" not found'}
    events = [mount, {"reason": "Scheduled"}, {"reason": "Pulling", "message": "Pulling image"}]
    assert diagnosis.pod_trouble(pod({"phase": "Pending"}), events) is None


@pytest.mark.parametrize("kind", ["Suspended", "SuccessCriteriaMet", "FailureTarget"])
def test_a_job_has_not_ended_before_its_cluster_says_complete_or_failed(kind):
    conditions = [{"type": kind, "status": "True"}, {"type": "Failed", "status": "False"}]
    assert diagnosis.job_end({"status": {"conditions": conditions}}) is None


@pytest.mark.parametrize(
    ("code", "reason", "words", "verdict"),
    [
        (1, "Error", "a bug", cli.EXIT_BUG),
        (2, "Error", "a mistake in its flags or its input", cli.EXIT_USER),
        (75, "Error", "another worker was lost", cli.EXIT_PEER_LOST),
        (126, "ContainerCannotRun", "no program", cli.EXIT_USER),
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
def test_a_disrupted_pod_is_worth_another_try_where_it_was_killed(reason):
    killed = {"name": "canopy", "state": {"terminated": {"exitCode": 137, "reason": "Error"}}}
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "why"}
    end = diagnosis.pod_end(
        pod({"phase": "Failed", "conditions": [condition], "containerStatuses": [killed]})
    )
    assert end
    assert end.code == cli.EXIT_PEER_LOST
    assert "why" in end.sentence


def test_a_mistake_stays_one_where_the_pod_was_being_evicted_as_well():
    state = {"terminated": {"exitCode": 2, "reason": "Error", "message": "error: --data: no such folder"}}
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    status = {"phase": "Failed", "conditions": [condition]}
    end = diagnosis.pod_end(pod(status | {"containerStatuses": [{"name": "canopy", "state": state}]}))
    assert end
    assert end.code == cli.EXIT_USER
    assert "--data: no such folder" in end.sentence


@pytest.mark.parametrize(
    "message",
    [
        'Usage of EmptyDir volume "tmp" exceeds the limit "2Gi". ',
        "Pod ephemeral local storage usage exceeds the total limit of containers 4Gi. ",
        'Container canopy exceeded its local ephemeral storage limit "4Gi". ',
    ],
)
def test_a_limit_of_the_pods_own_is_named_and_met_again_by_the_next_one(message):
    killed = {"name": "canopy", "state": {"terminated": {"exitCode": 137, "reason": "Error"}}}
    status = {"phase": "Failed", "reason": "Evicted", "message": message, "containerStatuses": [killed]}
    end = diagnosis.pod_end(pod(status))
    assert end
    assert end.sentence == f"it wrote more than its manifest allows ({message.strip()})"
    assert end.code == cli.EXIT_BUG


def test_an_evicted_pod_says_what_its_node_was_short_of():
    end = diagnosis.pod_end(
        pod({"phase": "Failed", "reason": "Evicted", "message": "The node was low on: memory."})
    )
    assert end
    assert "The node was low on: memory." in end.sentence
    assert end.code == cli.EXIT_PEER_LOST


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("NodeLost", cli.EXIT_PEER_LOST),
        ("Shutdown", cli.EXIT_PEER_LOST),
        ("NodeShutdown", cli.EXIT_PEER_LOST),
        ("Terminated", cli.EXIT_PEER_LOST),
        ("UnexpectedAdmissionError", cli.EXIT_BUG),
    ],
)
def test_a_pod_that_went_with_its_node_is_worth_another_try_and_one_that_it_refuses_is_not(reason, code):
    end = diagnosis.pod_end(pod({"phase": "Failed", "reason": reason}))
    assert end
    assert reason in end.sentence
    assert end.code == code


def test_a_container_that_failed_counts_while_another_of_its_pod_still_runs():
    failed = {"name": "canopy", "state": {"terminated": {"exitCode": 2, "reason": "Error"}}}
    runs = {"name": "sidecar", "state": {"running": {}}}
    end = diagnosis.pod_end(pod({"phase": "Running", "containerStatuses": [failed, runs]}))
    assert end
    assert end.code == cli.EXIT_USER


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


def of_age(minutes, name, index=None, phase="Running", **metadata):
    return pod({"phase": phase}, index, name, f"2026-11-22T10:{minutes:02d}:00Z", uid=name, **metadata)


def shown(pods, *followed):
    """The name of the pod whose log is shown, after those."""
    found = chief_of(pods, followed)
    return found and found["metadata"]["name"]


def test_the_chief_is_the_newest_pod_of_index_0():
    old, new, other = of_age(0, "old", 0, "Failed"), of_age(5, "new", 0), of_age(9, "other", 1)
    assert shown([new, other, old]) == "new"
    assert shown([new, other, old], "old") == "new"
    assert shown([new, other, old], "old", "new") == "new"
    assert shown([other]) is None
    assert container_of(old) == "canopy"
    named = pod({}, annotations={"kubectl.kubernetes.io/default-container": "sidecar"})
    assert container_of(named) == "sidecar"


def test_of_pods_side_by_side_one_is_followed_to_its_end_and_then_another_that_runs():
    first, second, third = of_age(0, "z"), of_age(0, "a"), of_age(1, "m")
    assert shown([third, first], "z") == "z"
    ended = of_age(0, "z", phase="Succeeded")
    assert shown([second, third, ended], "z") == "a"
    assert shown([of_age(0, "a", phase="Failed"), third, ended], "z", "a") == "m"
    assert shown([ended], "z") == "z"
    assert shown([], "z") is None


def test_a_pod_that_is_being_deleted_is_left_for_one_that_takes_its_place():
    leaving = of_age(0, "old", deletionTimestamp="2026-11-22T10:06:00Z")
    assert shown([leaving], "old") == "old"
    assert shown([leaving, of_age(6, "new")], "old") == "new"


def test_the_log_of_a_pod_that_failed_before_is_not_gone_back_to():
    failed, done = of_age(0, "old", phase="Failed"), of_age(5, "new", phase="Succeeded")
    assert shown([failed, done]) == "new"
    assert shown([failed, done], "new") == "new"


def test_a_work_queue_has_no_number_of_pods_to_be_done():
    job = {"spec": {"parallelism": 2}, "status": {"succeeded": 2}}
    assert diagnosis.standing(job, [pod({"phase": "Succeeded"})] * 2) == "pods: 2 done"


def test_how_a_job_stands_counts_its_pods():
    job = {"spec": {"completions": 4}, "status": {"succeeded": 1}}
    pods = [pod({"phase": phase}) for phase in ("Succeeded", "Running", "Running", "Pending")]
    assert diagnosis.standing(job, pods) == "pods: 1 of 4 done, 2 running, 1 waiting"
