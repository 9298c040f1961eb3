"""`python -m infra.submit` as a process, against a test API server that allows what k8s/rbac.yaml does."""

import re
import signal
import time

import pytest

from infra.submit import main
from tests.infra.conftest import job, settings_map
from tests.infra.playing import Stage, play, wait_for
from tests.infra.store import RefusalError


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--timeout", "-1"), "--timeout"),
        (("--patience", "-1"), "--patience"),
        (("--timeout", "nan"), "--timeout"),
        (("--delete_claims",), "--delete_claims goes with --delete"),
        (("--delete", "--follow"), "--delete takes away"),
        (("--delete", "--replace"), "--delete takes away"),
        (("--nonsense",), "--nonsense"),
    ],
)
def test_flags_that_make_no_sense_are_refused_before_the_cluster_is_asked(write, capsys, flags, words):
    assert main([str(write("t.yaml", job("train"))), *flags]) == 2
    assert words in capsys.readouterr().err


def test_files_are_applied_in_order_each_after_the_jobs_before_have_succeeded(server, submit, write):
    order = []

    def slow(stage):
        order.append(f"{stage.job} starts")
        pod = stage.pod()
        stage.run(pod)
        time.sleep(1)
        stage.end(pod)
        order.append(f"{stage.job} ends")
        stage.complete()

    play(server, first=slow, second=slow)
    done = submit(write("1.yaml", settings_map("one", A="1"), job("first")), write("2.yaml", job("second")))
    assert done.returncode == 0, done.stderr
    assert order == ["first starts", "first ends", "second starts", "second ends"]
    assert "job/first succeeded" in done.stdout
    assert "job/second succeeded" in done.stdout
    assert "configmap/one created" in done.stderr


def test_the_chiefs_log_is_followed_on_stdout_and_nobody_elses(server, submit, write):
    def training(stage):
        chief, other = stage.pod(0), stage.pod(1)
        for pod in (chief, other):
            stage.run(pod)
        for step in range(3):
            stage.say(chief, f"chief, step {step}")
            stage.say(other, f"other, step {step}")
            time.sleep(0.1)
        stage.end(chief)
        stage.end(other)
        stage.complete()

    play(server, train=training)
    done = submit(write("t.yaml", job("train", completions=2)), "--follow")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == [f"chief, step {step}" for step in range(3)]
    assert "other" not in done.stdout


def test_without_follow_no_log_is_read(server, submit, write):
    play(server)
    done = submit(write("t.yaml", job("train")))
    assert done.returncode == 0, done.stderr
    assert not server.log_reads
    assert "at work" not in done.stdout


def test_a_failure_names_the_pod_the_reason_and_the_last_lines_and_stops_the_row(server, submit, write):
    def fails(stage):
        chief, other = stage.pod(0), stage.pod(1)
        stage.run(chief)
        stage.run(other)
        stage.say(other, *(f"line {number}" for number in range(30)))
        stage.end(other, 137, "OOMKilled")
        stage.end(chief, 75, message="peer lost: worker 1 did not answer")
        stage.fail()

    play(server, train=fails)
    done = submit(write("t.yaml", job("train", completions=2)), write("p.yaml", job("predict")))
    assert done.returncode == 1
    assert "(worker 1): it took more memory than its limit and was killed (OOMKilled)" in done.stderr
    assert (
        "(worker 0): exit code 75 (another worker was lost or did not come, or a storage failed for a "
        'while); it said "peer lost' in done.stderr
    )
    assert "    line 29" in done.stderr
    assert "line 9\n" not in done.stderr
    assert "job/train failed (BackoffLimitExceeded" in done.stderr
    assert [item["metadata"]["name"] for item in server.store.list("jobs")] == ["train"]


def lost_with_its_node(stage):
    """A Job's pod, of which only the cluster's record is left."""
    pod = stage.pod()
    stage.run(pod)
    stage.condition(pod, type="DisruptionTarget", reason="DeletionByTaintManager")
    stage.end(pod, 137)
    return pod


def test_a_job_lost_to_its_nodes_is_worth_another_try(server, submit, write):
    def lost(stage):
        lost_with_its_node(stage)
        stage.fail()

    play(server, train=lost)
    done = submit(write("t.yaml", job("train")))
    assert done.returncode == 75
    assert "its node is lost" in done.stderr


def test_a_log_that_went_with_its_node_changes_nothing_about_how_a_job_ended(server, submit, write):
    def lost(stage):
        pod = lost_with_its_node(stage)
        server.refusals.append(("get", "pods", RefusalError(404, "NotFound", f'pods "{pod}" not found')))
        stage.fail()

    play(server, train=lost)
    assert submit(write("t.yaml", job("train"))).returncode == 75
    assert not server.refusals


def test_of_many_failed_pods_the_first_are_shown_and_none_that_was_followed_twice(server, submit, write):
    def fails(stage):
        pods = [(index, stage.pod(index)) for index in reversed(range(5))]
        for index, pod in pods:
            stage.run(pod)
            stage.say(pod, f"last word of {index}")
        with stage.store.changed:  # all at once
            for _, pod in pods:
                stage.end(pod, 1)
            stage.fail()

    play(server, train=fails)
    done = submit(write("t.yaml", job("train", completions=5)), "--follow")
    assert done.returncode == 1
    told = re.findall(r"worker (\d)\): exit code 1|    last word of (\d)", done.stderr)
    assert told == [("0", ""), ("1", ""), ("", "1"), ("2", ""), ("", "2")]
    assert "last word of 0" in done.stdout
    assert "2 more pods likewise" in done.stderr


def test_ctrl_c_leaves_the_job_running_and_says_how_to_come_back(server, start, write):
    def endless(stage):
        stage.run(stage.pod())

    play(server, train=endless)
    process = start(write("t.yaml", job("train")), "--follow")
    wait_for(lambda: ("list", "", "pods") in server.asked)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on; the same command follows it again" in stderr
    assert "Traceback" not in stderr
    assert server.store.get("jobs", "train")


def test_a_reader_that_goes_away_ends_the_following_and_not_the_job(server, start, write):
    def endless(stage):
        pod = stage.pod()
        stage.run(pod)
        stage.touch()
        while not server.closing.is_set():
            stage.say(pod, "a step")
            time.sleep(0.1)

    play(server, train=endless)
    process = start(write("t.yaml", job("train")), "--follow")
    assert process.stdout.readline() == "a step\n"
    process.stdout.close()
    assert process.wait(30) == 141
    assert "Traceback" not in process.stderr.read()
    assert server.store.get("jobs", "train")


def test_a_job_that_takes_longer_than_the_timeout_goes_on(server, submit, write):
    play(server, train=lambda stage: stage.run(stage.pod()))
    done = submit(write("t.yaml", job("train")), "--timeout", 2)
    assert done.returncode == 75
    assert "--timeout" in done.stderr
    assert server.store.get("jobs", "train")


def test_a_job_that_somebody_deletes_meanwhile_is_told(server, submit, write):
    def deleted(stage):
        stage.run(stage.pod())
        time.sleep(1)
        stage.store.delete("jobs", stage.job)

    play(server, train=deleted)
    done = submit(write("t.yaml", job("train")))
    assert done.returncode == 1
    assert "job/train was deleted by somebody" in done.stderr


def test_a_job_that_is_made_again_by_somebody_is_not_taken_for_the_one_that_was_started(
    server, submit, write
):
    def remade(stage):
        stage.run(stage.pod())
        time.sleep(1)
        with stage.store.changed:
            again = stage.store.delete("jobs", stage.job)
            del again["metadata"]["uid"]
            stage.store.put("jobs", again)
            stage.complete()
            stage.store.compact()  # a watch that has missed it

    play(server, train=remade)
    done = submit(write("t.yaml", job("train")))
    assert done.returncode == 1
    assert "job/train was deleted by somebody" in done.stderr


def test_what_other_jobs_of_the_namespace_do_is_none_of_this_ones_business(server, submit, write):
    server.store.apply("jobs", job("other"), "somebody", force=False)

    def beside(stage):
        stage.run(stage.pod())
        wait_for(lambda: ("watch", "batch", "jobs") in server.asked)
        Stage(server, server.store.get("jobs", "other")).fail()
        time.sleep(0.2)
        stage.complete()

    play(server, train=beside)
    done = submit(write("t.yaml", job("train")))
    assert done.returncode == 0, done.stderr


def test_pods_that_an_earlier_job_of_the_name_has_left_are_not_this_ones(server, submit, write):
    earlier = Stage(server, server.store.apply("jobs", job("train"), "kubectl", force=False)[0])
    left = earlier.pod()
    earlier.run(left)
    earlier.say(left, "of the earlier one")
    server.store.delete("jobs", "train")  # as kubectl does it: its pods have their grace period yet

    def fails(stage):
        earlier.end(left, 143)
        stage.end(stage.pod(), 2)
        stage.fail("PodFailurePolicy", "Container canopy failed with exit code 2")

    server.on_created["jobs"] = lambda created: fails(Stage(server, created))
    done = submit(write("t.yaml", job("train")), "--follow")
    assert done.returncode == 2
    assert not done.stdout
    assert "143" not in done.stderr


def test_delete_goes_from_the_last_object_of_the_last_file_to_the_first_and_may_be_repeated(
    server, submit, write
):
    play(server)
    files = (
        write("1.yaml", settings_map("one", A="1"), settings_map("two", A="1")),
        write("2.yaml", job("train")),
    )
    assert submit(*files).returncode == 0
    names = ["job/train", "configmap/two", "configmap/one"]
    for what in ("is deleted", "was not there"):
        done = submit(*files, "--delete")
        assert (done.returncode, done.stdout.splitlines()) == (0, [f"{name} {what}" for name in names])


def test_delete_takes_everything_away_but_the_claims(server, submit, write):
    play(server)
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    paths = write("s.yaml", claim, settings_map("train", A="1")), write("t.yaml", job("train"))
    assert submit(*paths).returncode == 0
    done = submit(*paths, "--delete")
    assert done.returncode == 0, done.stderr
    assert "persistentvolumeclaim/data stays" in done.stderr
    assert [name for _, name in server.store.objects if not name.startswith("train")] == ["data"]
    assert not server.store.list("pods")
    assert submit(*paths, "--delete", "--delete_claims").returncode == 0
    assert not server.store.objects


def test_an_api_of_somebody_elses_that_is_down_holds_nothing_up(server, submit, write):
    server.broken_groups = ["metrics.example.com/v1"]
    play(server)
    done = submit(write("t.yaml", settings_map("train", A="1"), job("train")))
    assert done.returncode == 0, done.stderr
    assert not server.broken_asked
