"""What `infra.submit` says of Jobs that do not start, and how it follows logs through lost connections."""

import time

import pytest

from infra.logs import DRAIN_SECONDS
from tests.infra.conftest import job
from tests.infra.playing import play
from tests.infra.store import RefusalError

NO_GPU = (
    "0/3 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, "
    "2 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available: 3 Preemption is not helpful."
)
PULL = 'Back-off pulling image "canopy:0.1.0": ErrImagePull: not found'


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


@pytest.mark.parametrize(("status", "said"), [(403, 1), (404, 0)])
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


@pytest.mark.parametrize(
    ("status", "message", "words"),
    [
        (403, 'User "ci" cannot patch resource "jobs"', "k8s/rbac.yaml"),
        (403, "exceeded quota: compute, requested: cpu=8", "quota has no room"),
        (422, "Job.batch is invalid: spec.backoffLimit: Invalid value: -1", "the cluster refuses it"),
    ],
)
def test_what_the_cluster_refuses_is_told_in_a_sentence(server, submit, write, status, message, words):
    server.refusals.append(("patch", "jobs", RefusalError(status, "Forbidden", message)))
    path = write("t.yaml", job("train"))
    done = submit(path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"applying job/train of {path}" in done.stderr
    assert words in done.stderr
    assert message in done.stderr


def test_credentials_that_are_not_accepted_are_told(server, submit, write):
    done = submit(write("t.yaml", job("train")), token="expired")
    assert done.returncode == 2
    assert "does not accept these credentials" in done.stderr


def test_credentials_that_expire_meanwhile_leave_the_job_running_and_it_is_told(server, submit, write):
    def expires(stage):
        stage.run(stage.pod())
        server.refusals.append(("list", "pods", RefusalError(401, "Unauthorized", "Unauthorized")))

    play(server, train=expires)
    done = submit(write("t.yaml", job("train")))
    assert done.returncode == 2
    assert "following job/train: the cluster does not accept these credentials" in done.stderr
    assert "the Job goes on, and the same command follows it again" in done.stderr
    assert server.store.get("jobs", "train")


def test_a_namespace_that_is_not_there_is_told(server, submit, write):
    done = submit(write("t.yaml", job("train")), "--namespace", "elsewhere")
    assert done.returncode == 2
    assert "--namespace" in done.stderr


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
