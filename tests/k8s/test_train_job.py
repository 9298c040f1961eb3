"""The training job: a gang of pods that outlives what clusters do to them."""

import pytest

from canopy import cli
from tests.k8s.manifests import (
    INSTANCE,
    OVERLAYS,
    command_of,
    every,
    file_of,
    objects,
    of_kind,
    rendered,
    template,
    the,
)
from trainer import cluster

NAME = "canopy-train"
LAUNCHER_STOPS = 30  # seconds from SIGTERM to its end, at most
GPU = "nvidia.com/gpu"


@pytest.fixture
def found():
    return objects(file_of("train"))


@pytest.fixture
def job(found):
    return the(found, "Job", NAME)


@pytest.fixture
def spec(job):
    return template(job)["spec"]


def environment(spec):
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in spec["containers"][0]["env"]}


@pytest.mark.parametrize("source", [file_of("train"), *OVERLAYS], ids=lambda path: path.name)
def test_completions_parallelism_and_workers_are_one_number(source):
    job = the(every(source), "Job", NAME)
    assert job["spec"]["completionMode"] == "Indexed"
    workers = int(template(job)["metadata"]["annotations"]["canopy-workers"])
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == workers > 1


def test_the_three_numbers_stand_side_by_side():
    lines = file_of("train").read_text().splitlines()
    names = ("completions:", "parallelism:", "canopy-workers:")
    at = [number for number, line in enumerate(lines) if line.strip().startswith(names)]
    assert len(at) == 3
    assert max(at) - min(at) < 6


@pytest.mark.parametrize("stage", ["train", "tune"])
def test_each_pod_has_one_gpu(stage):
    spec = template(the(objects(file_of(stage)), "Job", f"canopy-{stage}"))["spec"]
    (container,) = spec["containers"]
    assert container["resources"]["limits"][GPU] == "1"
    assert GPU not in container["resources"]["requests"], "an extended resource's request is its limit"
    assert {"key": GPU, "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]


def test_pods_find_each_other_by_names_that_outlive_them(found, job, spec):
    service = the(found, "Service", NAME)["spec"]
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"] is True
    assert service["selector"].items() <= template(job)["metadata"]["labels"].items()
    given = environment(spec)
    assert spec["subdomain"] == given["CANOPY_SERVICE"] == NAME
    (port,) = spec["containers"][0]["ports"]
    assert str(port["containerPort"]) == given["CANOPY_PORT"] == str(service["ports"][0]["port"])
    place = cluster.from_indexed_job(command_of(found, job, index=1).environment)
    assert place.addresses == (f"{NAME}-0.{NAME}:2222", f"{NAME}-1.{NAME}:2222")


def outcome(job, code=None, disrupted=False):
    """What the Job controller does with a failed pod: the first rule that fits."""
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        if "onExitCodes" in rule:
            on = rule["onExitCodes"]
            assert on["operator"] == "In"
            assert on["containerName"] == template(job)["spec"]["containers"][0]["name"]
            fits = code in on["values"]
        else:
            assert rule["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
            fits = disrupted
        if fits:
            return rule["action"]
    return "Count"


@pytest.mark.parametrize(
    ("code", "disrupted", "action"),
    [
        (cli.EXIT_USER, False, "FailJob"),
        (cli.EXIT_USER, True, "FailJob"),
        (cli.EXIT_PEER_LOST, False, "Ignore"),
        (cli.EXIT_TERMINATED, False, "Ignore"),
        (137, True, "Ignore"),  # drained, and killed after the grace period
        (None, True, "Ignore"),  # its node is gone, and no code is known
        (137, False, "Count"),  # out of memory
        (cli.EXIT_BUG, False, "Count"),
        (139, False, "Count"),  # a segmentation fault
    ],
)
def test_what_ended_a_pod_decides_whether_another_is_tried(job, code, disrupted, action):
    assert outcome(job, code, disrupted) == action


@pytest.mark.parametrize("stage", ["preprocess", "predict", "evaluate", "tune"])
def test_other_jobs_also_end_at_once_after_a_users_mistake_and_never_after_a_disruption(stage):
    (job,) = of_kind(objects(file_of(stage)), "Job")
    assert outcome(job, cli.EXIT_USER) == "FailJob"
    assert outcome(job, 137, disrupted=True) == outcome(job, cli.EXIT_TERMINATED) == "Ignore"
    assert outcome(job, cli.EXIT_BUG) == outcome(job, 137) == "Count"
    # The study of a search is a file that all pods write to.
    assert outcome(job, cli.EXIT_PEER_LOST) == ("Ignore" if stage == "tune" else "Count")


@pytest.mark.parametrize("stage", ["preprocess", "train", "predict", "evaluate", "tune"])
def test_a_job_is_bounded_and_makes_no_second_pod_beside_a_dying_one(stage):
    (job,) = of_kind(objects(file_of(stage)), "Job")
    spec, pod = job["spec"], template(job)["spec"]
    assert 3 <= spec.get("backoffLimit", spec.get("backoffLimitPerIndex")) <= 6
    assert spec["podReplacementPolicy"] == "Failed"
    assert pod["restartPolicy"] == "Never"
    assert 3600 <= spec["activeDeadlineSeconds"] <= 7 * 86400
    assert spec["ttlSecondsAfterFinished"] >= 86400, "a night's logs are there in the morning"
    assert "nodeName" not in pod
    assert "priorityClassName" not in pod, "not every cluster has it"


def test_a_gangs_failures_are_counted_by_index_and_none_may_fail_for_good(job):
    assert "backoffLimit" not in job["spec"]
    assert job["spec"]["maxFailedIndexes"] == 0


def test_pods_of_a_search_take_trials_until_there_are_none_however_many_have_ended():
    (job,) = of_kind(objects(file_of("tune")), "Job")
    assert job["spec"]["parallelism"] > 1
    assert not {"completions", "completionMode"} & job["spec"].keys()


@pytest.mark.parametrize("stage", ["preprocess", "predict", "evaluate"])
def test_sigterm_ends_a_command_that_has_no_handler_for_it(stage):
    (job,) = of_kind(objects(file_of(stage)), "Job")
    pod = template(job)["spec"]
    # The kernel shields process 1 of a namespace from signals that it has no handler for.
    assert pod["shareProcessNamespace"] is True
    assert len(pod["containers"]) == 1, "containers that share it would see each other"


def test_pods_wait_longer_for_each_other_than_the_job_controller_does_before_it_replaces_one(found):
    # MaxJobPodFailureBackOff of pkg/controller/job: ten minutes.
    assert int(the(found, "ConfigMap", NAME)["data"]["RENDEZVOUS_TIMEOUT"]) > 600


@pytest.mark.parametrize("stage", ["train", "tune"])
def test_the_checkpoint_fits_into_the_grace_period(stage):
    spec = template(the(objects(file_of(stage)), "Job", f"canopy-{stage}"))["spec"]
    assert spec["terminationGracePeriodSeconds"] >= LAUNCHER_STOPS + 10


@pytest.mark.parametrize("stage", ["train", "tune"])
def test_shared_memory_is_large_and_counted(stage):
    spec = template(the(objects(file_of(stage)), "Job", f"canopy-{stage}"))["spec"]
    (container,) = spec["containers"]
    (volume,) = (v for v in spec["volumes"] if v.get("emptyDir", {}).get("medium") == "Memory")
    assert {"name": volume["name"], "mountPath": "/dev/shm"} in container["volumeMounts"]
    assert volume["emptyDir"]["sizeLimit"] == "1Gi"


@pytest.mark.parametrize("stage", ["train", "tune"])
def test_pods_spread_over_nodes_but_start_on_one_where_there_is_one(stage):
    job = the(objects(file_of(stage)), "Job", f"canopy-{stage}")
    (spread,) = template(job)["spec"]["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert spread["labelSelector"]["matchLabels"] == {INSTANCE: job["metadata"]["name"]}


def test_ready_means_training(spec):
    (container,) = spec["containers"]
    probe = container["readinessProbe"]
    assert probe["exec"]["command"] == ["test", "-f", environment(spec)["CANOPY_READY_FILE"]]
    assert probe["periodSeconds"] <= 10
    assert probe["timeoutSeconds"] > 2, "a busy container is slow to start even that"
    assert probe["failureThreshold"] == 1, "no longer ready once the process has ended"
    assert not {"livenessProbe", "startupProbe"} & container.keys(), "the launcher itself watches its process"


def test_a_restart_begins_anew_once_for_a_job_not_once_for_a_pod(spec):
    source = environment(spec)["CANOPY_RUN_ID"]["fieldRef"]["fieldPath"]
    assert source == "metadata.labels['batch.kubernetes.io/controller-uid']"


@pytest.mark.parametrize("name", ["preprocess", "predict"])
def test_a_pod_knows_the_lock_and_the_work_of_one_that_it_replaces_by_its_job(name):
    (job,) = of_kind(objects(file_of(name)), "Job")
    source = environment(template(job)["spec"])["CANOPY_RUN_ID"]["fieldRef"]["fieldPath"]
    assert source == "metadata.labels['batch.kubernetes.io/controller-uid']"


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_no_overlay_touches_what_keeps_the_gang_together(overlay, job):
    other = the(rendered(overlay), "Job", NAME)
    for key in job["spec"].keys() - {"template"}:
        assert other["spec"][key] == job["spec"][key], key
    here, there = template(job), template(other)
    assert here["metadata"] == there["metadata"]
    for key in ("subdomain", "terminationGracePeriodSeconds", "restartPolicy", "topologySpreadConstraints"):
        assert here["spec"][key] == there["spec"][key], key
    for key in ("command", "args", "env", "readinessProbe"):
        assert here["spec"]["containers"][0][key] == there["spec"]["containers"][0][key], key
