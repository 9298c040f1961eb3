"""What `infra.submit` says where the cluster refuses what it is asked."""

import pytest

from tests.infra.conftest import job
from tests.infra.playing import play
from tests.infra.store import RefusalError


@pytest.mark.parametrize(
    ("status", "message", "words"),
    [
        (403, 'User "ci" cannot patch resource "jobs"', "k8s/rbac.yaml"),
        (403, "exceeded quota: compute, requested: cpu=8", "quota has no room"),
        (403, 'violates PodSecurity "restricted:latest"', "Pod Security level forbids it"),
        (403, "nobody may", "the cluster forbids it"),
        (404, "the server could not find the requested resource", "the cluster refuses it"),
        (409, "the server is being upgraded", "the cluster refuses it"),
        (422, "Job.batch is invalid: spec.backoffLimit: Invalid value: -1", "the cluster refuses it"),
    ],
)
def test_what_the_cluster_refuses_is_told_in_a_sentence(server, submit, write, status, message, words):
    if status == 422:  # of a Job that is there, it is not taken for a difference
        server.store.apply("jobs", job("train"), "canopy", force=False)
    server.refusals.append(("patch", "jobs", RefusalError(status, "Forbidden", message)))
    path = write("t.yaml", job("train"))
    done = submit(path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"applying job/train of {path}" in done.stderr
    assert words in done.stderr
    assert message in done.stderr


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("backoffLimitPerIndx", 6, "a field is misspelt, or of a later Kubernetes than this cluster's"),
        ("backoffLimit", "six", "the cluster refuses it"),
    ],
)
def test_a_field_that_the_cluster_does_not_take_is_the_manifests_mistake(
    server, submit, write, monkeypatch, field, value, words
):
    monkeypatch.setattr("infra.connection.TRIES", 0)
    wrong = job("train")
    wrong["spec"][field] = value
    path = write("t.yaml", wrong)
    done = submit(path)
    assert done.returncode == 2
    assert f"applying job/train of {path}: {words} (failed to create typed patch object" in done.stderr
    assert not server.store.list("jobs")


def test_a_quantity_that_cannot_be_read_is_the_manifests_mistake(server, submit, write, monkeypatch):
    monkeypatch.setattr("infra.connection.TRIES", 0)
    message = (
        "failed to convert new object (lab/train; batch/v1, Kind=Job) to proper version: unable to convert "
        "unstructured object to batch/v1, Kind=Job: quantities must match the regular expression"
    )
    server.refusals.append(("patch", "jobs", RefusalError(500, "", message)))
    done = submit(write("t.yaml", job("train")))
    assert done.returncode == 2
    assert f"the cluster refuses it ({message})" in done.stderr


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


def test_a_cluster_that_goes_away_before_a_job_is_followed_is_worth_another_try(
    server, submit, write, monkeypatch
):
    monkeypatch.setattr("infra.connection.TRIES", 0)
    server.refusals.append(("patch", "jobs", RefusalError(503, "ServiceUnavailable", "etcd leader changed")))
    done = submit(write("t.yaml", job("train")))
    assert done.returncode == 75
    assert done.stderr == "error: the cluster does not answer any more: etcd leader changed\n"


@pytest.mark.parametrize(("verb", "flags"), [("get", ()), ("watch", ()), ("delete", ("--delete",))])
def test_a_right_that_is_missing_is_told_whatever_it_is_for(server, submit, write, verb, flags):
    message = f'User "ci" cannot {verb} resource "jobs"'
    server.refusals.append((verb, "jobs", RefusalError(403, "Forbidden", message)))
    play(server, train=lambda stage: stage.run(stage.pod()))
    done = submit(write("t.yaml", job("train")), *flags)
    assert done.returncode == 2
    assert f"a right is missing ({message})" in done.stderr
    assert not done.stdout
