"""What `infra.submit` does about a Job that is there already: follows it, leaves it, or takes its place."""

import threading
import time

import pytest

from tests.infra.conftest import job, settings_map
from tests.infra.playing import Stage, play, succeed, wait_for
from tests.infra.store import RefusalError, now


def test_a_job_that_is_there_already_unchanged_is_followed_not_started_again(server, start, submit, write):
    over = threading.Event()

    def waits(stage):
        pod = stage.pod()
        stage.run(pod)
        over.wait(60)
        stage.end(pod)
        stage.complete()

    play(server, train=waits)
    path = write("t.yaml", job("train"))
    first = start(path)
    wait_for(lambda: server.store.list("pods"))
    second = submit(path, "--timeout", 0.1)
    assert second.returncode == 75, second.stderr
    assert "job/train is there already, unchanged" in second.stderr
    over.set()
    assert first.wait(60) == 0
    assert len(server.store.list("pods")) == 1


def test_a_job_that_has_succeeded_is_not_run_again_unless_asked_to(server, submit, write):
    play(server)
    path = write("t.yaml", job("train"))
    assert submit(path).returncode == 0
    uid = server.store.get("jobs", "train")["metadata"]["uid"]
    again = submit(path, "--follow")
    assert again.returncode == 0
    assert again.stdout == "job/train had succeeded already\n"
    assert "--replace runs it again" in again.stderr
    assert server.store.get("jobs", "train")["metadata"]["uid"] == uid
    replaced = submit(path, "--replace")
    assert replaced.returncode == 0, replaced.stderr
    assert server.store.get("jobs", "train")["metadata"]["uid"] != uid


def test_replace_starts_all_of_a_files_jobs_anew(server, submit, write):
    play(server)
    path = write("t.yaml", job("first"), job("second"))
    assert submit(path).returncode == 0
    before = {each["metadata"]["uid"] for each in server.store.list("jobs")}
    done = submit(path, "--replace")
    assert done.returncode == 0, done.stderr
    after = {each["metadata"]["uid"] for each in server.store.list("jobs")}
    assert len(after) == len(before) == 2
    assert not before & after


def test_of_a_files_jobs_each_is_seen_to_where_one_has_succeeded_before(server, submit, write):
    play(server, second=lambda stage: stage.fail())
    server.store.apply("jobs", job("first"), "canopy", force=False)
    Stage(server, server.store.get("jobs", "first")).complete()
    path = write("t.yaml", job("first"), job("second"))
    done = submit(path)
    assert done.returncode == 1
    assert "job/second failed" in done.stderr


@pytest.mark.parametrize(
    ("before", "after", "keys"),
    [
        (
            {"data": {"A": "1", "B": "1"}, "binaryData": {"X": "MQ=="}},
            {"data": {"A": "1", "C": "1"}, "binaryData": {"X": "Mg=="}},
            "B, X, C",
        ),
        ({"data": None}, {"data": {"A": "1"}}, "A"),
    ],
)
def test_settings_that_came_went_or_are_binary_differ_too(server, submit, write, before, after, keys):
    apart = {key: value for key, value in settings_map("train").items() if key != "data"}
    server.store.apply("configmaps", apart | before, "canopy", force=False)
    server.store.apply("jobs", job("train"), "canopy", force=False)
    done = submit(write("t.yaml", apart | after, job("train")))
    assert done.returncode == 2
    assert f"runs with other settings (configmap/train: {keys})" in done.stderr


def test_a_job_that_failed_before_says_how_and_is_not_run_again(server, submit, write):
    def fails(stage):
        pod = stage.pod()
        stage.end(pod, 2, message="error: --data: no such folder")
        stage.fail("PodFailurePolicy", "Container canopy failed with exit code 2")

    play(server, train=fails)
    path = write("t.yaml", job("train"))
    first, second = submit(path), submit(path)
    assert (first.returncode, second.returncode) == (2, 2)
    assert "--data: no such folder" in second.stderr
    assert len(server.store.list("pods")) == 1


def test_a_job_that_differs_in_what_cannot_change_is_told_so(server, submit, write):
    play(server)
    assert submit(write("t.yaml", job("train"))).returncode == 0
    path = write("t.yaml", job("train", image="canopy:0.2.0"))
    done = submit(path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "succeeded with other settings (job/train: spec.template)" in done.stderr
    assert "--replace" in done.stderr
    assert submit(path, "--replace").returncode == 0


@pytest.mark.parametrize(
    ("fields", "told"),
    [((), "what a Job cannot change"), (("spec.template", "spec.selector"), "spec.template, spec.selector")],
)
def test_each_field_that_cannot_change_is_told_where_the_cluster_names_any(
    server, submit, write, fields, told
):
    server.store.apply("jobs", job("train"), "canopy", force=False)
    causes = [{"message": "of no field"}, *({"field": field} for field in fields)]
    refusal = RefusalError(422, "Invalid", "Job.batch is invalid: field is immutable", causes)
    server.refusals.append(("patch", "jobs", refusal))
    done = submit(write("t.yaml", job("train")))
    assert done.returncode == 2
    assert f"runs with other settings (job/train: {told})" in done.stderr


@pytest.mark.parametrize("image", ["canopy:0.1.0", "canopy:0.2.0"])
def test_settings_of_a_job_that_runs_are_left_alone_and_it_is_told_which_differ(server, submit, write, image):
    server.store.apply("configmaps", settings_map("train", EPOCHS="1", SEED="0"), "canopy", force=False)
    server.store.apply("jobs", job("train"), "canopy", force=False)
    kept = server.store.objects.copy()
    done = submit(write("t.yaml", settings_map("train", EPOCHS="2", SEED="0"), job("train", image=image)))
    assert done.returncode == 2
    assert "runs with other settings (configmap/train: EPOCHS" in done.stderr
    assert ("job/train: spec.template" in done.stderr) == (image == "canopy:0.2.0")
    assert "nothing was changed; --replace" in done.stderr
    assert server.store.objects == kept


def queued(**pod):
    """A Job in a queue, whose pods ask for a GPU's node."""
    made = job("train")
    made["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "canopy"}
    asked = {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}], "nodeSelector": {"gpu": "l4"}}
    made["spec"]["template"]["spec"] |= asked | pod
    return made


def test_what_a_queue_has_added_for_its_nodes_makes_no_other_job(server, submit, write):
    server.store.apply("jobs", queued(), "canopy", force=False)

    def admit(there):
        pod = there["spec"]["template"]["spec"]
        pod["tolerations"].append({"key": "spot", "operator": "Exists"})
        pod["nodeSelector"]["spot"] = "true"

    admitted = server.store.change("jobs", "train", admit)
    done = submit(write("t.yaml", queued()), "--timeout", 0.1)
    assert done.returncode == 75, done.stderr
    assert "job/train is there already, unchanged" in done.stderr
    assert server.store.get("jobs", "train") == admitted
    for other in ({"nodeSelector": {"gpu": "h100"}}, {"tolerations": [{"key": "amd.com/gpu"}]}):
        done = submit(write("t.yaml", queued(**other)))
        assert done.returncode == 2
        assert "runs with other settings (job/train: spec.template)" in done.stderr


@pytest.mark.parametrize("key", ["tolerations", "nodeSelector"])
def test_of_a_job_that_waits_in_its_queue_what_its_file_no_longer_has_is_taken_away(
    server, submit, write, key
):
    more = {
        "tolerations": [
            {"key": "spot", "operator": "Exists"},
            {"key": "nvidia.com/gpu", "operator": "Exists"},
        ],
        "nodeSelector": {"spot": "true", "gpu": "l4"},
    }
    server.store.apply("jobs", queued(**{key: more[key]}), "canopy", force=False)
    server.store.change("jobs", "train", lambda there: there["spec"].update(suspend=True))
    less = queued()
    done = submit(write("t.yaml", less), "--timeout", 0.1)
    assert done.returncode == 75, done.stderr
    assert "job/train changed" in done.stderr
    pod = server.store.get("jobs", "train")["spec"]["template"]["spec"]
    assert pod[key] == less["spec"]["template"]["spec"][key]


def test_a_queues_name_on_what_is_no_job_changes_nothing_about_it(server, submit, write):
    named = settings_map("train", EPOCHS="1")
    named["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "canopy"}  # as an overlay's `labels` sets it
    server.store.apply("configmaps", named, "canopy", force=False)
    anywhere = queued()
    for key in ("tolerations", "nodeSelector"):
        del anywhere["spec"]["template"]["spec"][key]
    server.store.apply("jobs", anywhere, "canopy", force=False)
    done = submit(write("t.yaml", settings_map("more", A="1"), named, anywhere), "--timeout", 0.001)
    assert done.returncode == 75, done.stderr
    assert "configmap/more created" in done.stderr
    assert "configmap/train unchanged" in done.stderr


def test_a_result_of_other_settings_is_not_taken_for_this_ones(server, submit, write):
    play(server)
    assert submit(write("t.yaml", settings_map("train", EPOCHS="1"), job("train"))).returncode == 0
    path = write("t.yaml", settings_map("train", EPOCHS="2"), job("train"))
    done = submit(path, write("p.yaml", job("predict")))
    assert done.returncode == 2
    assert "job/train of" in done.stderr
    assert "succeeded with other settings (configmap/train: EPOCHS)" in done.stderr
    assert not done.stdout
    assert [item["metadata"]["name"] for item in server.store.list("jobs")] == ["train"]
    assert submit(path, "--replace").returncode == 0
    assert server.store.get("configmaps", "train")["data"] == {"EPOCHS": "2"}


def test_what_a_job_lets_be_changed_is_changed_while_it_runs(server, submit, write):
    longer = job("train")
    server.store.apply("configmaps", settings_map("train", A="1"), "canopy", force=False)
    server.store.apply("jobs", longer, "canopy", force=False)
    longer["spec"]["activeDeadlineSeconds"] = 99
    done = submit(write("t.yaml", settings_map("train", A="1"), longer), "--timeout", 0.1)
    assert done.returncode == 75, done.stderr
    assert "job/train changed" in done.stderr
    assert server.store.get("jobs", "train")["spec"]["activeDeadlineSeconds"] == 99


def test_the_number_of_pods_that_know_how_many_they_are_is_not_changed_while_they_run(server, submit, write):
    server.store.apply("jobs", job("train", completions=2), "canopy", force=False)
    more = write("t.yaml", job("train", completions=3))
    done = submit(more, "--timeout", 0.1)
    assert done.returncode == 2, done.stderr
    assert "runs with other settings (job/train: spec.completions, spec.parallelism)" in done.stderr
    assert server.store.get("jobs", "train")["spec"]["completions"] == 2
    play(server)
    assert submit(more, "--replace").returncode == 0
    assert server.store.get("jobs", "train")["spec"]["completions"] == 3


def test_a_work_queue_gets_more_pods_while_it_runs(server, submit, write):
    queue = job("tune")
    queue["spec"]["parallelism"] = 2
    server.store.apply("jobs", queue, "canopy", force=False)
    queue["spec"]["parallelism"] = 4
    done = submit(write("t.yaml", queue), "--timeout", 0.1)
    assert done.returncode == 75, done.stderr
    assert "job/tune changed" in done.stderr


def test_a_queue_that_guards_a_job_makes_it_another_one_and_not_a_refusal(server, submit, write):
    server.store.apply("jobs", job("train"), "canopy", force=False)
    message = (
        'admission webhook "vjob.kb.io" denied the request: metadata.labels[kueue.x-k8s.io/queue-name]: '
        'Invalid value: "canopy": field is immutable'
    )
    path = write("t.yaml", job("train"))
    for _ in range(2):
        server.refusals.append(("patch", "jobs", RefusalError(403, "Forbidden", message)))
    done = submit(path)
    assert done.returncode == 2
    assert "runs with other settings (job/train: what a Job cannot change)" in done.stderr
    play(server)
    done = submit(path, "--replace")
    assert done.returncode == 0, done.stderr


def test_fields_that_somebody_else_has_set_are_left_alone_unless_forced(server, submit, write):
    play(server)
    theirs = settings_map("train", EPOCHS="9")
    server.store.apply("configmaps", theirs, "kubectl-client-side-apply", force=False)
    path = write("t.yaml", settings_map("train", EPOCHS="2"), job("train"))
    done = submit(path)
    assert done.returncode == 2
    assert 'conflict with "kubectl-client-side-apply": .data.EPOCHS' in done.stderr
    assert "--force_conflicts" in done.stderr
    assert submit(path, "--force_conflicts").returncode == 0
    assert server.store.get("configmaps", "train")["data"] == {"EPOCHS": "2"}


def test_a_job_is_not_taken_away_where_what_comes_in_its_place_is_refused(server, submit, write):
    theirs = [settings_map("train", EPOCHS="9"), job("train")]
    for item in theirs:
        server.store.apply(f"{item['kind'].lower()}s", item, "kubectl-client-side-apply", force=False)
    kept = server.store.objects.copy()
    path = write("t.yaml", settings_map("train", EPOCHS="2"), job("train", image="canopy:0.2.0"))
    done = submit(path, "--replace")
    assert done.returncode == 2
    assert 'conflict with "kubectl-client-side-apply": .data.EPOCHS' in done.stderr
    assert server.store.objects == kept
    play(server)
    done = submit(path, "--replace", "--force_conflicts")
    assert done.returncode == 0, done.stderr


def test_a_job_stays_where_what_cannot_change_is_another_object(server, submit, write):
    objects = [settings_map("train", EPOCHS="1"), job("train")]
    for item in objects:
        server.store.apply(f"{item['kind'].lower()}s", item, "canopy", force=False)
    kept = server.store.objects.copy()
    message = 'ConfigMap "train" is invalid: data: Forbidden: field is immutable when `immutable` is set'
    server.refusals.append(("patch", "configmaps", RefusalError(422, "Invalid", message)))
    done = submit(write("t.yaml", *objects), "--replace")
    assert done.returncode == 2
    assert f"the cluster refuses it ({message})" in done.stderr
    assert server.store.objects == kept


def test_a_job_of_kubectls_that_differs_is_told_so(server, submit, write):
    server.store.apply("jobs", job("train"), "kubectl-client-side-apply", force=False)
    done = submit(write("t.yaml", job("train", image="canopy:0.2.0")))
    assert done.returncode == 2
    assert "runs with other settings (job/train: spec.template)" in done.stderr


def test_a_job_that_is_just_being_deleted_is_started_anew(server, submit, write):
    server.on_created["jobs"] = lambda created: succeed(Stage(server, created))
    leaving = job("train")
    leaving["metadata"]["deletionTimestamp"] = now()
    server.store.put("jobs", leaving)
    done = submit(write("t.yaml", job("train")), "--timeout", 5)
    assert done.returncode == 0, done.stderr
    assert "job/train is taken away first" in done.stderr


def test_a_job_is_not_started_anew_before_the_one_before_is_gone(server, submit, write):
    server.on_created["jobs"] = lambda created: succeed(Stage(server, created))
    path = write("t.yaml", job("train"))
    assert submit(path).returncode == 0
    uid = server.store.get("jobs", "train")["metadata"]["uid"]

    def goes():
        wait_for(lambda: "deletionTimestamp" in server.store.get("jobs", "train")["metadata"])
        time.sleep(1)  # its pods' grace period
        server.store.delete("jobs", "train")

    threading.Thread(target=goes, daemon=True).start()
    assert submit(path, "--replace").returncode == 0
    assert server.store.get("jobs", "train")["metadata"]["uid"] != uid


@pytest.mark.parametrize(
    ("has_pod", "what"),
    [
        (True, "not gone yet: train-0 (no node); a pod stays"),
        (False, "its pods are gone, and something else"),
    ],
)
def test_what_holds_a_job_that_is_still_being_deleted_after_three_minutes_is_told(
    server, submit, write, monkeypatch, has_pod, what
):
    monkeypatch.setattr("infra.running.DELETED_SECONDS", 0.0)
    server.store.apply("jobs", job("train"), "canopy", force=False)  # and nobody who takes it away
    name = Stage(server, server.store.get("jobs", "train")).pod() if has_pod else ""
    done = submit(write("t.yaml", job("train")), "--delete")
    assert done.returncode == 2
    assert "job/train is still being deleted after 0 s" in done.stderr
    assert what.replace("train-0", name) in done.stderr
