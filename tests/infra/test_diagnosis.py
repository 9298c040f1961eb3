"""Why a Job or a pod does not go on, in words."""

import pytest

from infra import diagnosis, endings
from tests.infra.made import pod


def unschedulable(message, reason="Unschedulable"):
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
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
        ('persistentvolumeclaim "canopy-data" is being deleted', "its claim canopy-data is not there", True),
        ("1 Insufficient cpu, 1 Insufficient amd.com/gpu.", "no node has a free GPU (amd.com/gpu)", False),
        ("1 Insufficient memory, 2 Insufficient memory.", "enough memory free", False),
        ("2 node(s) didn't match node selector.", "the labels that it asks for", False),
        ("1 node(s) had untolerated taint {spot: true}.", "a taint that it does not tolerate", False),
        ("1 node(s) were unschedulable, 2 node(s) had untolerated taint.", "closed to new pods", False),
        ("1 node(s) had taint {node.kubernetes.io/unschedulable: }.", "cordoned, or being drained", False),
        ("1 node(s) were unschedulable, 2 Insufficient nvidia.com/gpu.", "no node has a free GPU", False),
        (
            "1 cannot allocate all claims, 1 node(s) didn't match Pod's node affinity/selector.",
            "no node has the devices free that it asks for",
            False,
        ),
        ("2 node(s) didn't match Pod's node affinity/selector.", "the labels that it asks for", False),
        ("1 node(s) had volume node affinity conflict.", "no node that reaches its volume", False),
        ("1 node(s) didn't match PersistentVolume's node affinity.", "reaches its volume", False),
        ("1 node(s) didn't find available persistent volumes to bind.", "has a volume for its claim", False),
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
    ("message", "words"),
    [
        (
            'running PreBind plugin "VolumeBinding": binding volumes: provisioning failed for PVC "data"',
            "canopy-data is not bound to a volume yet",
        ),
        ('running Bind plugin "DefaultBinder": no', "the scheduler has failed on it, and tries again"),
    ],
)
def test_what_the_scheduler_failed_on_after_it_had_chosen_a_node_is_told(message, words):
    trouble = diagnosis.pod_trouble(unschedulable(message, "SchedulerError"), ())
    assert trouble == diagnosis.Trouble(words, message)


def test_a_gated_pod_names_its_gates():
    gated = unschedulable("Scheduling is blocked due to non-empty scheduling gates", "SchedulingGated")
    gated["spec"]["schedulingGates"] = [{"name": "kueue.x-k8s.io/admission"}, {"name": "example.com/later"}]
    trouble = diagnosis.pod_trouble(gated, ())
    assert trouble
    assert "gated" in str(trouble)
    assert str(trouble).endswith("kueue.x-k8s.io/admission, example.com/later")
    assert not trouble.hopeless


@pytest.mark.parametrize(
    ("message", "words", "hopeless"),
    [
        (
            'pods "train-x" is forbidden: exceeded quota: compute, requested: cpu=8',
            "quota has no room",
            False,
        ),
        (
            'pods "train-x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot',
            "Pod Security level forbids its pods",
            True,
        ),
        (
            'error looking up service account lab/train: serviceaccount "train" not found',
            "its ServiceAccount is not there",
            True,
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
        ("CreateContainerError", "its container cannot be started"),
        ("RunContainerError", "its container cannot be started"),
        ("PreCreateHookError", "its container cannot be started"),
        ("PreStartHookError", "its container cannot be started"),
        ("ErrImagePull", "the image canopy:0.1.0 cannot be pulled"),
        ("ImagePullBackOff", "the image canopy:0.1.0 cannot be pulled"),
        ("ErrImageNeverPull", "the image canopy:0.1.0 cannot be pulled"),
        ("InvalidImageName", "the image canopy:0.1.0 cannot be pulled"),
        ("ImageInspectError", "the image canopy:0.1.0 cannot be pulled"),
        ("RegistryUnavailable", "the image canopy:0.1.0 cannot be pulled"),
        ("SignatureValidationFailed", "the image canopy:0.1.0 cannot be pulled"),
    ],
)
@pytest.mark.parametrize("message", ['secret "key" not found', ""])
def test_a_container_that_cannot_start_is_not_mended_by_waiting(kind, reason, words, message):
    starts = {"name": "first", "state": {"waiting": {"reason": "PodInitializing"}}}
    waiting = {"reason": reason, "message": message}
    status = {"name": "canopy", "image": "canopy:0.1.0", "state": {"waiting": waiting}}
    trouble = diagnosis.pod_trouble(pod({"phase": "Pending", kind: [starts, status]}), ())
    assert trouble == diagnosis.Trouble(words, message or reason, hopeless=True)


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


@pytest.mark.parametrize("after", ["Pulling", "Pulled", "Created", "Started"])
def test_a_volume_that_was_mounted_after_all_is_no_trouble_while_the_container_starts(after):
    mount = {"reason": "FailedMount", "message": 'configmap "x" not found'}
    events = [mount, {"reason": "Scheduled"}, {"reason": after, "message": "the image"}]
    assert diagnosis.pod_trouble(pod({"phase": "Pending"}), events) is None


def test_a_container_that_ends_again_and_again_says_how_it_ended_last():
    status = {
        "name": "canopy",
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
    }
    trouble = diagnosis.pod_trouble(pod({"phase": "Running", "containerStatuses": [status]}), ())
    assert "again and again, the last time with exit code 1" in str(trouble)
    assert trouble
    assert not trouble.hopeless  # what it waits for may come
    del status["lastState"]
    trouble = diagnosis.pod_trouble(pod({"phase": "Running", "containerStatuses": [status]}), ())
    assert trouble == diagnosis.Trouble("its container ends again and again")


@pytest.mark.parametrize(
    "condition",
    [
        {"type": "PodScheduled", "status": "True"},
        {"type": "PodScheduled", "status": "False", "reason": "SomethingNew"},
        {"type": "Ready", "status": "False", "reason": "ContainersNotReady"},
    ],
)
def test_a_pod_that_simply_starts_has_no_trouble(condition):
    assert diagnosis.pod_trouble(pod({"phase": "Pending", "conditions": [condition]}), ()) is None


def test_a_claim_is_named_beside_volumes_of_other_kinds():
    waits = unschedulable("pod has unbound immediate PersistentVolumeClaims.")
    waits["spec"]["volumes"].insert(0, {"name": "tmp", "emptyDir": {}})
    assert "canopy-data is not bound" in str(diagnosis.pod_trouble(waits, ()))
    waits["spec"]["volumes"].clear()
    assert "its claim is not bound" in str(diagnosis.pod_trouble(waits, ()))


EXTERNAL = (
    "Waiting for a volume to be created either by the external provisioner 'filestore.csi.storage.gke.io' or "
    "manually by the system administrator."
)
PROVISIONING = 'External provisioner is provisioning volume for claim "default/canopy-data"'
NO_CLASS = 'storageclass.storage.k8s.io "fast" not found'
NO_QUOTA = 'failed to provision volume with StorageClass "premium-rwx": rpc error: code = ResourceExhausted'
NONE_THERE = "no persistent volumes available for this claim and no storage class is set"


@pytest.mark.parametrize(
    ("told", "what", "hopeless"),
    [
        ([("WaitForFirstConsumer", "waiting for first consumer to be created before binding")], None, False),
        ([("Provisioning", PROVISIONING), ("ExternalProvisioning", EXTERNAL)], "not bound", False),
        ([("ExternalProvisioning", EXTERNAL), ("Provisioning", PROVISIONING)], "not bound", False),
        ([("ProvisioningFailed", NO_QUOTA), ("Provisioning", PROVISIONING)], "gets no volume", False),
        ([("ProvisioningFailed", NO_CLASS)], "gets no volume", True),
        ([("FailedBinding", NONE_THERE)], "gets no volume", False),
        (
            [("ProvisioningFailed", NO_QUOTA), ("ProvisioningSucceeded", "Successfully provisioned")],
            None,
            False,
        ),
    ],
)
@pytest.mark.parametrize("immediate", [False, True], ids=["chosen", "immediate"])
def test_what_keeps_a_claim_from_its_volume_is_told_of_the_pod_that_waits_for_it(
    told, what, hopeless, immediate
):
    events = [{"reason": reason, "message": message} for reason, message in told]
    of_claim = {"canopy-data": events}.__getitem__
    unbound = "pod has unbound immediate PersistentVolumeClaims."
    waits = unschedulable(unbound) if immediate else pod({"phase": "Pending"})
    trouble = diagnosis.pod_trouble(waits, (), of_claim)
    if what is None:
        whole = diagnosis.Trouble("canopy-data is not bound to a volume yet", unbound)
        assert trouble == (whole if immediate else None)
    else:
        assert trouble
        assert what in trouble.what
        assert trouble.what.startswith("canopy-data ")
        assert trouble.detail in {message for _, message in told}
        assert trouble.hopeless is hopeless


def test_nobody_asks_for_the_claims_of_a_pod_that_a_node_has():
    scheduled = {"type": "PodScheduled", "status": "True"}
    waits = pod({"phase": "Pending", "conditions": [scheduled]})
    said: dict[str, list[dict[str, str]]] = {}
    assert diagnosis.pod_trouble(waits, (), said.__getitem__) is None


@pytest.mark.parametrize("phase", ["Running", "Succeeded"])
def test_a_pod_that_runs_or_is_done_has_no_trouble(phase):
    mounted_late = [{"reason": "FailedMount", "message": 'configmap "x" not found'}]
    assert diagnosis.pod_trouble(pod({"phase": phase}), mounted_late) is None
    assert endings.pod_end(pod({"phase": phase})) is None


@pytest.mark.parametrize(
    ("phase", "containers", "whole", "gates", "told"),
    [
        ("Running", "True", "False", [], True),  # the node controller's doing
        ("Running", "False", "False", [], False),  # a probe's
        ("Running", "True", "True", [], False),
        ("Running", "True", "False", [{"conditionType": "example.com/balanced"}], False),
        ("Failed", "True", "False", [], False),  # the garbage collector's, once the node is gone
    ],
)
def test_a_pod_whose_node_is_silent_says_so_and_what_it_takes(phase, containers, whole, gates, told):
    conditions = [{"type": "ContainersReady", "status": containers}, {"type": "Ready", "status": whole}]
    started = {"name": "canopy", "state": {"running": {}}}
    runs = pod({"phase": phase, "conditions": conditions, "containerStatuses": [started]})
    runs["spec"] |= {"nodeName": "node-2", "readinessGates": gates}
    trouble = diagnosis.pod_trouble(runs, ())
    assert ("its node node-2 does not answer" in str(trouble)) is told
    assert not (trouble and trouble.hopeless)  # it may come back by itself


def test_a_suspended_job_says_that_somebody_holds_it():
    trouble = diagnosis.job_trouble({"metadata": {"name": "t"}, "spec": {"suspend": True}}, ())
    assert trouble
    assert "suspended" in str(trouble)
    assert not trouble.hopeless
    assert diagnosis.job_trouble({"metadata": {"name": "t"}, "spec": {"suspend": False}}, ()) is None
