"""Which pod is followed, what is said of a Job that does not start, and how a silent cluster is borne."""

import time

import pytest

from infra.following import chief_of, container_of
from tests.infra.conftest import job
from tests.infra.made import pod
from tests.infra.playing import play
from tests.infra.store import RefusalError

NO_GPU = (
    "0/3 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, "
    "2 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available: 3 Preemption is not helpful."
)
PULL = 'Back-off pulling image "canopy:0.1.0": ErrImagePull: not found'


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
    assert shown([leaving, of_age(6, "new", phase="Succeeded")], "old", "new") == "new"


def test_the_log_of_a_pod_that_failed_before_is_not_gone_back_to():
    failed, done = of_age(0, "old", phase="Failed"), of_age(5, "new", phase="Succeeded")
    assert shown([failed, done]) == shown([done, failed]) == "new"
    assert shown([failed, done], "new") == "new"


def test_an_image_that_is_not_there_is_waited_for_and_then_given_up(server, submit, write):
    play(server, train=lambda stage: stage.waiting(stage.pod(), "ImagePullBackOff", PULL))
    done = submit(write("t.yaml", job("train")), "--patience", 1)
    assert done.returncode == 2
    assert done.stderr.count("the image canopy:0.1.0 cannot be pulled") == 1
    assert "--replace" in done.stderr
    assert server.store.get("jobs", "train")


def test_what_has_mended_itself_does_not_use_up_the_patience(server, submit, write):
    def late(stage):
        pod = stage.pod()
        stage.waiting(pod, "ErrImagePull", PULL)
        stage.touch()
        time.sleep(1)
        stage.run(pod)
        stage.touch()
        time.sleep(3)
        stage.touch()
        stage.end(pod)
        stage.complete()

    play(server, train=late)
    done = submit(write("t.yaml", job("train")), "--patience", 3)
    assert done.returncode == 0, done.stderr
    assert "cannot be pulled" in done.stderr


def test_a_gpu_that_is_still_to_come_is_waited_for_longer_than_patience(server, submit, write):
    def later(stage):
        pod = stage.pod()
        stage.condition(pod, type="PodScheduled", status="False", reason="Unschedulable", message=NO_GPU)
        time.sleep(3)
        stage.store.change("pods", pod, lambda item: item["status"].update(conditions=[]))
        stage.run(pod)
        stage.end(pod)
        stage.complete()

    play(server, train=later)
    done = submit(write("t.yaml", job("train")), "--patience", 1)
    assert done.returncode == 0, done.stderr
    assert "no node has a free GPU (nvidia.com/gpu): 0/3 nodes are available" in done.stderr


def test_a_volume_that_cannot_be_mounted_is_told_from_the_pods_events(server, submit, write):
    def stuck(stage):
        pod = stage.pod()
        stage.event("pods", pod, "FailedMount", 'MountVolume.SetUp failed: configmap "x" not found')

    play(server, train=stuck)
    done = submit(write("t.yaml", job("train")), "--patience", 0.5)
    assert done.returncode == 2
    assert (
        'a volume of it cannot be mounted: MountVolume.SetUp failed: configmap "x" not found' in done.stderr
    )


def test_a_volume_that_is_being_made_is_told_from_the_claims_events_until_it_is_there(server, submit, write):
    said = 'External provisioner is provisioning volume for claim "default/data"'

    def late(stage):
        pod = stage.pod()
        stage.event("persistentvolumeclaims", "data", "Provisioning", said)
        stage.touch()
        time.sleep(3)
        phase = {"status": {"phase": "Bound"}}
        stage.store.change("persistentvolumeclaims", "data", lambda item: item.update(phase))
        stage.run(pod)
        stage.end(pod)
        stage.complete()

    play(server, train=late)
    train = job("train")
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    train["spec"]["template"]["spec"]["volumes"] = [volume]
    server.store.put(
        "persistentvolumeclaims",
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}},
    )
    done = submit(write("t.yaml", train))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"waits: data is not bound to a volume yet: {said}") == 1


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            'pods "train-x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot',
            "Pod Security",
        ),
        ('error looking up service account lab/train: serviceaccount "train" not found', "ServiceAccount"),
    ],
)
def test_pods_that_may_not_be_created_are_told_from_the_jobs_events(server, submit, write, message, words):
    play(
        server, train=lambda stage: stage.event("jobs", "train", "FailedCreate", f"Error creating: {message}")
    )
    done = submit(write("t.yaml", job("train")), "--patience", 0.5)
    assert done.returncode == 2
    assert words in done.stderr
    assert message in done.stderr


def test_a_pod_that_may_not_be_created_beside_one_that_runs_is_told(server, submit, write):
    message = 'pods "train-1-x" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1'

    def half(stage):
        pod = stage.pod(0)
        stage.run(pod)
        stage.event("jobs", "train", "FailedCreate", f"Error creating: {message}")
        stage.touch()
        time.sleep(2)
        stage.fail("DeadlineExceeded")

    play(server, train=half)
    done = submit(write("t.yaml", job("train", completions=2)))
    assert "job/train: the namespace's quota has no room for its pods" in done.stderr
    assert message in done.stderr


def test_a_job_that_has_failed_and_waits_for_a_lost_nodes_pod_says_so_once(server, submit, write):
    def decided(stage):
        pod = stage.pod(0)
        stage.run(pod)
        verdict = {
            "type": "FailureTarget",
            "status": "True",
            "reason": "PodFailurePolicy",
            "message": "exit 2",
        }
        for _ in range(2):
            stage.store.change(
                "jobs", "train", lambda it: it.setdefault("status", {}).update(conditions=[verdict])
            )
            time.sleep(1.5)
        stage.end(pod, 143)
        stage.fail("PodFailurePolicy", "exit 2")

    play(server, train=decided)
    done = submit(write("t.yaml", job("train")))
    told = "job/train has failed (PodFailurePolicy: exit 2), and is over when the last of its pods has ended"
    assert done.stderr.count(told) == 1, done.stderr
    assert done.stderr.splitlines()[-1].endswith("job/train failed (PodFailurePolicy: exit 2)")


def test_a_job_that_ends_without_ever_having_pods_says_why(server, submit, write):
    def never(stage):
        with stage.store.changed:  # both at once
            stage.event("jobs", "train", "FailedCreate", "Error creating: something new")
            stage.fail("DeadlineExceeded", "Job was active longer than specified deadline")

    play(server, train=never)
    done = submit(write("t.yaml", job("train")))
    assert done.returncode == 1
    assert "job/train: its pods cannot be created: Error creating: something new" in done.stderr
    assert "job/train failed (DeadlineExceeded" in done.stderr


@pytest.mark.parametrize("status", [403, 503])
def test_events_that_cannot_be_read_are_done_without(server, submit, write, monkeypatch, status):
    monkeypatch.setattr("infra.connection.TRIES", 1)
    server.refusals += [("list", "events", RefusalError(status, "Refused", "no events"))] * 3

    def takes_its_time(stage):
        pod = stage.pod()
        stage.touch()
        time.sleep(1)
        stage.run(pod)
        stage.end(pod)
        stage.complete()

    play(server, train=takes_its_time)
    done = submit(write("t.yaml", job("train")))
    assert done.returncode == 0, done.stderr
    assert len(server.refusals) < 3


def test_a_chief_that_is_replaced_is_followed_on_its_new_pod(server, submit, write):
    def replaced(stage):
        first = stage.pod(0)
        stage.run(first)
        stage.say(first, "epoch 1")
        time.sleep(2)
        stage.lose(first)
        time.sleep(1)
        second = stage.pod(0)
        stage.touch()
        stage.run(second)
        stage.say(second, "epoch 1 again", "epoch 2")
        stage.end(second)
        stage.complete()

    play(server, train=replaced)
    done = submit(write("t.yaml", job("train", completions=1)), "--follow")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == ["epoch 1", "epoch 1 again", "epoch 2"]
    assert "is over: the log of pod" in done.stderr


def test_of_two_pods_of_a_work_queue_no_line_is_lost(server, submit, write):
    def search(stage):
        first = stage.pod()
        stage.run(first)
        stage.say(first, "first begins")
        stage.touch()
        time.sleep(1)
        second = stage.pod()
        stage.run(second)
        stage.say(second, "second begins")
        stage.touch()
        time.sleep(1)
        stage.say(first, "first ends")
        stage.end(first)
        stage.touch()
        time.sleep(1)
        stage.say(second, "second ends")
        stage.end(second)
        stage.complete()

    play(server, tune=search)
    queue = job("tune")
    queue["spec"]["parallelism"] = 2
    done = submit(write("t.yaml", queue), "--follow")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:-1] == ["first begins", "first ends", "second begins", "second ends"]
    assert "pods: 0 done, 2 running" in done.stderr


@pytest.mark.parametrize("how", ["in the stream", "at once"])
def test_a_watch_that_is_too_old_is_begun_anew(server, submit, write, how):
    def talks(stage):
        pod = stage.pod()
        stage.run(pod)
        for _ in range(4):
            if how == "in the stream":
                stage.store.compact()
            else:
                server.watch_gone += 1
            time.sleep(0.5)
        stage.end(pod)
        stage.complete()

    play(server, train=talks)
    done = submit(write("t.yaml", job("train")))
    assert done.returncode == 0, done.stderr


def test_a_page_in_place_of_an_answer_is_passed_over_while_a_job_runs(server, submit, write):
    def behind_a_proxy(stage):
        pod = stage.pod()
        stage.run(pod)
        time.sleep(1)
        server.pages = 3
        time.sleep(6)
        stage.end(pod)
        stage.complete()

    play(server, train=behind_a_proxy)
    done = submit(write("t.yaml", job("train")), "--follow")
    assert done.returncode == 0, done.stderr
    assert not server.pages


def test_a_cluster_that_goes_away_for_good_is_told_with_the_way_back(server, submit, write, monkeypatch):
    monkeypatch.setattr("infra.connection.TRIES", 1)
    monkeypatch.setattr("infra.following.LOST_SECONDS", 0.0)

    def ends_with_the_server(stage):
        stage.run(stage.pod())
        server.refusals += [("get", "jobs", RefusalError(503, "ServiceUnavailable", "down"))] * 20

    play(server, train=ends_with_the_server)
    done = submit(write("t.yaml", job("train")))
    assert done.returncode == 75
    assert "the same command follows it again" in done.stderr
