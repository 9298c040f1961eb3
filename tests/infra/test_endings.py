"""How Jobs, pods and containers stand and end."""

import pytest

from canopy import cli
from infra import endings
from infra.manifests import INDEX_LABEL
from tests.infra.made import pod


@pytest.mark.parametrize(
    ("labels", "annotations", "index"),
    [
        ({"": "0"}, None, 0),
        (None, {"": "1"}, 1),
        ({"": "2"}, {}, 2),
        ({"": "12"}, {"": "12"}, 12),
        ({}, {}, None),
    ],
)
def test_a_pods_index_is_read_from_its_label_or_its_annotation(labels, annotations, index):
    named = [keys and {INDEX_LABEL: keys[""]} for keys in (labels, annotations)]
    assert endings.worker({"metadata": dict(zip(("labels", "annotations"), named, strict=True))}) == index
    kept = {key: value for key, value in zip(("labels", "annotations"), named, strict=True) if value}
    assert endings.worker({"metadata": kept}) == index


@pytest.mark.parametrize(
    ("condition", "succeeded", "sentence"),
    [
        ({"type": "Complete"}, True, "succeeded"),
        (
            {"type": "Failed", "reason": "DeadlineExceeded", "message": "too long"},
            False,
            "failed (DeadlineExceeded: too long)",
        ),
        ({"type": "Failed", "reason": "DeadlineExceeded"}, False, "failed (DeadlineExceeded)"),
        ({"type": "Failed", "message": "", "reason": ""}, False, "failed"),
    ],
)
def test_how_a_job_ended_is_told_in_its_clusters_words(condition, succeeded, sentence):
    end = endings.job_end({"status": {"conditions": [condition | {"status": "True"}]}})
    assert end
    assert (end.succeeded, end.sentence) == (succeeded, sentence)


@pytest.mark.parametrize("kind", ["Suspended", "SuccessCriteriaMet", "FailureTarget"])
def test_a_job_has_not_ended_before_its_cluster_says_complete_or_failed(kind):
    conditions = [{"type": kind, "status": "True"}, {"type": "Failed", "status": "False"}]
    assert endings.job_end({"status": {"conditions": conditions}}) is None


@pytest.mark.parametrize(
    ("conditions", "decided"),
    [
        ([{"type": "FailureTarget", "reason": "Policy", "message": "exit 2"}], "has failed (Policy: exit 2)"),
        ([{"type": "FailureTarget"}], "has failed"),
        ([{"type": "SuccessCriteriaMet", "reason": "CompletionsReached"}], "has succeeded"),
        ([{"type": "FailureTarget", "status": "False"}], None),
        ([{"type": "FailureTarget"}, {"type": "Failed"}], None),
        ([{"type": "Suspended"}], None),
        ([], None),
    ],
)
def test_what_is_decided_about_a_job_is_known_before_its_last_pod_is_over(conditions, decided):
    given = [{"status": "True"} | condition for condition in conditions]
    assert endings.job_verdict({"status": {"conditions": given}}) == decided


@pytest.mark.parametrize(
    ("code", "reason", "words", "verdict"),
    [
        (1, "Error", "a bug", cli.EXIT_BUG),
        (2, "Error", "a mistake in its flags or its input", cli.EXIT_USER),
        (75, "Error", "another worker was lost", cli.EXIT_PEER_LOST),
        (126, "ContainerCannotRun", "no program", cli.EXIT_USER),
        (127, "ContainerCannotRun", "not in the image", cli.EXIT_USER),
        (130, "Error", "interrupted", cli.EXIT_BUG),
        (137, "OOMKilled", "more memory than its limit and was killed", cli.EXIT_BUG),
        (
            75,
            "OOMKilled",
            "a storage failed for a while); before that it took more memory",
            cli.EXIT_PEER_LOST,
        ),
        (2, "OOMKilled", "flags or its input); before that it took more memory", cli.EXIT_USER),
        (137, "Error", "killed by SIGKILL", cli.EXIT_BUG),
        (139, "Error", "killed by SIGSEGV", cli.EXIT_BUG),
        (143, "Error", "stopped by SIGTERM", cli.EXIT_PEER_LOST),
        (200, "Error", "exit code 200", cli.EXIT_BUG),
        (3, "Error", "exit code 3", cli.EXIT_BUG),
    ],
)
def test_what_an_exit_code_means(code, reason, words, verdict):
    end = endings.container_end({"exitCode": code, "reason": reason})
    assert words in end.sentence
    assert "()" not in end.sentence
    assert (reason in end.sentence) == (reason == "OOMKilled")
    assert end.code == verdict
    assert not end.succeeded


RUNC = "failed to create shim task: OCI runtime create failed: runc create failed: "
START = RUNC + "unable to start container process: "


@pytest.mark.parametrize(
    ("message", "verdict"),
    [
        (START + 'exec: "pyton": executable file not found in $PATH: unknown', cli.EXIT_USER),
        (START + 'error during container init: exec: "pyton": not found: unknown', cli.EXIT_USER),
        ("crun: executable file `pyton` not found in $PATH: unknown", cli.EXIT_USER),
        (START + "error running prestart hook #0\nnvidia-container-cli: no driver: unknown", cli.EXIT_BUG),
        ("", cli.EXIT_BUG),
    ],
)
def test_a_container_that_its_node_could_not_start_says_why_and_whose_fault_it_is(message, verdict):
    end = endings.container_end({"exitCode": 128, "reason": "StartError", "message": message})
    assert end.sentence.startswith("exit code 128 (its node could not start it)")
    assert "it said" not in end.sentence, "the words are the node's"
    assert not message or message.splitlines()[-1] in end.sentence
    assert end.code == verdict


@pytest.mark.parametrize(("reason", "code"), [("ContainerStatusUnknown", 137), ("Unknown", 255)])
def test_a_container_that_its_node_has_lost_is_worth_another_try_and_nobody_killed_it(reason, code):
    end = endings.container_end({"exitCode": code, "reason": reason, "message": "could not be located"})
    assert f"exit code {code} (its node has lost it" in end.sentence
    assert "SIGKILL" not in end.sentence
    assert end.code == cli.EXIT_PEER_LOST


def test_a_container_that_went_on_without_a_process_that_was_killed_for_memory_has_succeeded():
    assert endings.container_end({"exitCode": 0, "reason": "OOMKilled"}).succeeded


def test_a_containers_last_word_is_told():
    end = endings.container_end({"exitCode": 2, "message": "starting\nerror: --data: no such folder\n"})
    assert end.sentence.endswith('it said "error: --data: no such folder"')


@pytest.mark.parametrize("reason", [*endings.DISRUPTIONS, "SomethingNew"])
def test_a_disrupted_pod_is_worth_another_try_where_it_was_killed(reason):
    killed = {"name": "canopy", "state": {"terminated": {"exitCode": 137, "reason": "Error"}}}
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "why"}
    conditions = [{"type": "PodScheduled", "status": "True"}, condition]
    end = endings.pod_end(pod({"phase": "Failed", "conditions": conditions, "containerStatuses": [killed]}))
    assert end
    assert end.code == cli.EXIT_PEER_LOST
    assert "(why)" in end.sentence
    assert reason in end.sentence or endings.DISRUPTIONS.get(reason)


def test_a_pod_that_runs_on_for_its_grace_period_is_told_to_be_disrupted():
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
    end = endings.pod_end(pod({"phase": "Running", "conditions": [condition]}))
    assert end
    assert end.sentence == "it made room for a pod of higher priority"
    assert end.code == cli.EXIT_PEER_LOST


def test_an_eviction_that_did_not_come_about_disrupts_nothing():
    condition = {"type": "DisruptionTarget", "status": "False"}
    assert endings.pod_end(pod({"phase": "Running", "conditions": [condition]})) is None
    failed = {"name": "canopy", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}
    end = endings.pod_end(pod({"phase": "Failed", "conditions": [condition], "containerStatuses": [failed]}))
    assert end
    assert end.code == cli.EXIT_BUG
    assert "a bug" in end.sentence


def test_of_several_containers_that_failed_the_first_says_why():
    codes = [{"name": str(code), "state": {"terminated": {"exitCode": code}}} for code in (1, 139, 2, 127)]
    failed = pod({"phase": "Failed", "initContainerStatuses": codes[:1], "containerStatuses": codes[1:2]})
    failed["spec"]["initContainers"] = [{"name": "1"}]
    assert "exit code 1 " in str(endings.pod_end(failed))
    failed["status"]["containerStatuses"] = codes[1:]
    assert "exit code 2 " in str(endings.pod_end(failed))


@pytest.mark.parametrize("code", [75, 1])
def test_a_sidecar_that_is_killed_after_the_others_does_not_say_how_a_pod_ended(code):
    def ended(name, code):
        return {"name": name, "state": {"terminated": {"exitCode": code, "reason": "Error"}}}

    status = {"phase": "Failed", "initContainerStatuses": [ended("setup", 0), ended("proxy", 137)]}
    meshed = pod(status | {"containerStatuses": [ended("canopy", code)]})
    meshed["spec"]["initContainers"] = [{"name": "setup"}, {"name": "proxy", "restartPolicy": "Always"}]
    end = endings.pod_end(meshed)
    assert end
    assert end.code == code
    assert f"exit code {code} " in end.sentence
    meshed["status"] |= {"phase": "Succeeded", "containerStatuses": [ended("canopy", 0)]}
    assert endings.pod_end(meshed) is None


def test_a_pod_that_was_done_before_it_could_be_evicted_has_not_failed():
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    assert endings.pod_end(pod({"phase": "Succeeded", "conditions": [condition]})) is None


def test_a_pod_that_failed_without_a_word_is_not_worth_another_try():
    end = endings.pod_end(pod({"phase": "Failed"}))
    assert end
    assert end.code == cli.EXIT_BUG
    assert "does not say why" in end.sentence


def test_a_mistake_stays_one_where_the_pod_was_being_evicted_as_well():
    state = {"terminated": {"exitCode": 2, "reason": "Error", "message": "error: --data: no such folder"}}
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    status = {"phase": "Failed", "conditions": [condition]}
    end = endings.pod_end(pod(status | {"containerStatuses": [{"name": "canopy", "state": state}]}))
    assert end
    assert end.code == cli.EXIT_USER
    assert "--data: no such folder" in end.sentence


@pytest.mark.parametrize("code", [137, 143])
@pytest.mark.parametrize(
    "message",
    [
        'Usage of EmptyDir volume "tmp" exceeds the limit "2Gi". ',
        "Pod ephemeral local storage usage exceeds the total limit of containers 4Gi. ",
        'Container canopy exceeded its local ephemeral storage limit "4Gi". ',
    ],
)
def test_a_limit_of_the_pods_own_is_named_and_met_again_by_the_next_one(message, code):
    killed = {"name": "canopy", "state": {"terminated": {"exitCode": code, "reason": "Error"}}}
    status = {"phase": "Failed", "reason": "Evicted", "message": message, "containerStatuses": [killed]}
    end = endings.pod_end(pod(status))
    assert end
    assert end.sentence == f"it wrote more than its manifest allows ({message.strip()})"
    assert end.code == cli.EXIT_BUG


def test_an_evicted_pod_says_what_its_node_was_short_of():
    end = endings.pod_end(
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
        ("DeadlineExceeded", cli.EXIT_BUG),
    ],
)
def test_a_pod_that_went_with_its_node_is_worth_another_try(reason, code):
    end = endings.pod_end(pod({"phase": "Failed", "reason": reason}))
    assert end
    assert f"its node stopped it ({reason})" in end.sentence
    assert end.code == code


@pytest.mark.parametrize("reason", ["UnexpectedAdmissionError", "OutOfcpu", "NodeAffinity", "NodeShutdown"])
def test_a_pod_that_its_node_did_not_take_may_find_another(reason):
    message = "Pod was rejected: Allocate failed due to no healthy devices present"
    end = endings.pod_end(pod({"phase": "Failed", "reason": reason, "message": message}))
    assert end
    assert end.sentence == f"its node did not take it ({reason}: {message})"
    assert end.code == cli.EXIT_PEER_LOST


def test_a_container_that_failed_counts_while_another_of_its_pod_still_runs():
    failed = {"name": "canopy", "state": {"terminated": {"exitCode": 2, "reason": "Error"}}}
    runs = {"name": "sidecar", "state": {"running": {}}}
    end = endings.pod_end(pod({"phase": "Running", "containerStatuses": [failed, runs]}))
    assert end
    assert end.code == cli.EXIT_USER


@pytest.mark.parametrize(
    ("codes", "whole"),
    [((), 1), ((75, 75), 75), ((75, 2), 2), ((1, 75), 1), ((1, 2), 2)],
)
def test_a_mistake_counts_before_a_bug_and_a_bug_before_a_lost_peer(codes, whole):
    assert endings.verdict([endings.End(False, "", code) for code in codes]) == whole


def test_a_work_queue_has_no_number_of_pods_to_be_done():
    job = {"spec": {"parallelism": 2}, "status": {"succeeded": 2}}
    assert endings.standing(job, [pod({"phase": "Succeeded"})] * 2) == "pods: 2 done"


def test_how_a_job_stands_counts_its_pods():
    job = {"spec": {"completions": 4}, "status": {"succeeded": 2}}  # a pod may be gone by now that succeeded
    pods = [pod({"phase": phase}) for phase in ("Succeeded", "Running", "Running", "Pending", "Failed")]
    assert endings.standing(job, pods) == "pods: 2 of 4 done, 2 running, 1 waiting, 1 failed"


def test_a_job_that_has_no_pods_yet_has_none_done():
    assert endings.standing({"spec": {"completions": 4}, "status": {}}, []) == "pods: 0 of 4 done"


@pytest.mark.parametrize(
    ("status", "over"),
    [
        (None, False),
        ({"phase": "Running"}, False),
        ({"phase": "Succeeded"}, True),
        ({"phase": "Failed"}, True),
    ],
)
def test_a_pod_is_over_once_it_has_succeeded_or_failed(status, over):
    assert endings.is_over(pod(status)) is over
    assert (endings.phase(pod(status)) == "Pending") is (status is None)
