"""How `infra.submit` finds its cluster, what it says where there is none, and how it gets over a busy one."""

import os
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import yaml

from infra.cluster_api import RefusedError, UnreachableError
from infra.connection import connect
from infra.submit import main
from tests.conftest import ROOT
from tests.infra.conftest import job
from tests.infra.playing import play
from tests.infra.store import RefusalError


def run(tmp_path, *flags, **environment):
    words = [sys.executable, "-m", "infra.submit", *map(str, flags)]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **environment}
    return subprocess.run(
        words, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=60, check=False
    )


def test_without_a_cluster_it_says_where_it_looked(tmp_path, write):
    done = run(tmp_path, write("t.yaml", job("train")))
    assert done.returncode == 2
    assert done.stderr.startswith("error: no cluster: ")
    assert "KUBECONFIG" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_context_that_is_not_there_is_named(server, tmp_path, write):
    config = server.kubeconfig(tmp_path / "config")
    done = run(tmp_path, write("t.yaml", job("train")), "--context", "nowhere", KUBECONFIG=str(config))
    assert done.returncode == 2
    assert "nowhere" in done.stderr


@pytest.mark.parametrize("current", [None, "one that was deleted"])
def test_a_context_that_is_asked_for_needs_no_current_one_beside_it(server, tmp_path, write, current):
    play(server)
    config = server.kubeconfig(tmp_path / "kubeconfig")
    text = yaml.safe_load(config.read_text())
    text["current-context"] = current
    config.write_text(yaml.safe_dump({key: value for key, value in text.items() if value}))
    done = run(tmp_path, write("t.yaml", job("train")), "--context", "test", KUBECONFIG=str(config))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "text", ["a: [b\n:::", "hello", "[1, 2]", "contexts: 1", "clusters: [{name: x}]\ncurrent-context: x"]
)
def test_a_kubeconfig_that_is_malformed_is_told_by_name_in_one_sentence(tmp_path, write, text):
    config = tmp_path / "config"
    config.write_text(text)
    done = run(tmp_path, write("t.yaml", job("train")), KUBECONFIG=str(config))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(config) in done.stderr or "no cluster" in done.stderr


@pytest.mark.parametrize("how", ["a folder", "no text"])
def test_a_kubeconfig_that_cannot_be_read_is_told_by_name(tmp_path, monkeypatch, capsys, write, how):
    config = tmp_path / "config"
    if how == "a folder":
        config.mkdir()
    else:
        config.write_bytes(b"\xff\xfe\xfd")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(config))
    assert main([str(write("t.yaml", job("train")))]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert str(config) in shown


def test_what_kinds_there_are_is_kept_in_no_file_that_others_may_have_written(server, tmp_path, monkeypatch):
    config = server.kubeconfig(tmp_path / "kubeconfig")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(config))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    connect(None, None)
    assert [*tmp_path.iterdir()] == [config]


def test_a_page_in_place_of_an_answer_is_told(server, submit, write):
    server.pages = 9
    done = submit(write("t.yaml", job("train")))
    assert done.returncode == 2
    assert "cannot be reached: it answers with what is no JSON" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("page", [b"<html>\n", b'"no"', b"[1]", b'{"details": null}', b""])
def test_a_page_with_an_errors_status_is_told_by_its_status(server, submit, write, page):
    server.pages, server.page_status, server.page = 9, 451, page
    done = submit(write("t.yaml", job("train")))
    assert done.returncode == 2
    assert (
        done.stderr == "error: asking the cluster: the cluster refuses it (Unavailable For Legal Reasons)\n"
    )


@pytest.mark.parametrize(
    ("asked_for", "of_context", "to"), [("a", "b", "a"), (None, "b", "b"), (None, None, "default")]
)
def test_everything_goes_to_the_namespace_of_the_flag_else_the_contexts(
    server, tmp_path, monkeypatch, asked_for, of_context, to
):
    config = server.kubeconfig(tmp_path / "kubeconfig", namespace=of_context)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(config))
    assert connect(None, asked_for).namespace == to


def test_without_a_kubeconfig_the_pod_that_it_runs_in_knows_the_cluster(
    server, tmp_path, monkeypatch, capsys, write
):
    def inside(client_configuration):
        client_configuration.host = server.url

    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    monkeypatch.setattr("kubernetes.config.load_incluster_config", inside)
    assert connect(None, "lab").namespace == "lab"
    assert connect(None, None).namespace == "default"
    (tmp_path / "namespace").write_text("of-the-pod\n")
    monkeypatch.setattr("infra.connection.Path", lambda _: tmp_path / "namespace")
    assert connect(None, None).namespace == "of-the-pod"
    assert main([str(write("t.yaml", job("train"))), "--context", "other"]) == 2
    assert capsys.readouterr().err.startswith("error: no cluster: ")


def test_events_come_oldest_first_and_are_those_of_one_object(server, tmp_path, monkeypatch):
    config = server.kubeconfig(tmp_path / "kubeconfig")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(config))
    times = (
        ("last", "lastTimestamp", "09Z"),
        ("first", "eventTime", "07.5Z"),
        ("second", "lastTimestamp", "08Z"),
    )
    for name, key, second in times:
        event = {
            "metadata": {"name": name},
            "involvedObject": {"uid": "1"},
            key: f"2026-11-22T10:00:{second}",
        }
        server.store.put("events", event)
    server.store.put("events", {"metadata": {"name": "other"}, "involvedObject": {"uid": "2"}})
    found = connect(None, None).events({"metadata": {"uid": "1"}})
    assert [each["metadata"]["name"] for each in found] == ["first", "second", "last"]


def test_credentials_that_a_missing_login_plugin_did_not_bring_are_no_missing_right(server, tmp_path, write):
    config = server.kubeconfig(tmp_path / "config")
    text = yaml.safe_load(config.read_text())
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-plugin"}
    text["users"][0]["user"] = {"exec": plugin | {"interactiveMode": "Never", "provideClusterInfo": True}}
    config.write_text(yaml.safe_dump(text))
    done = run(tmp_path, write("t.yaml", job("train")), KUBECONFIG=str(config))
    assert done.returncode == 2
    assert "no credentials were sent" in done.stderr
    assert "login plugin" in done.stderr
    assert "a right is missing" not in done.stderr


def test_a_cluster_that_does_not_listen_is_told_within_seconds(server, tmp_path, write):
    config = server.kubeconfig(tmp_path / "config")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        text = yaml.safe_load(config.read_text())
        text["clusters"][0]["cluster"]["server"] = f"http://127.0.0.1:{unused.getsockname()[1]}"
        config.write_text(yaml.safe_dump(text))
        done = run(tmp_path, write("t.yaml", job("train")), KUBECONFIG=str(config))
    assert done.returncode == 2
    assert "cannot be reached" in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_cluster_that_cuts_every_connection_off_is_told(server, submit, write, monkeypatch):
    monkeypatch.setattr("infra.connection.TRIES", 1)
    server.cut_off = 2
    done = submit(write("t.yaml", job("train")))
    assert done.returncode == 2
    assert "cannot be reached: ('Connection aborted.'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_kind_that_the_cluster_does_not_know_is_named(server, submit, write):
    stranger = {"apiVersion": "kueue.x-k8s.io/v1", "kind": "LocalQueue", "metadata": {"name": "q"}}
    done = submit(write("t.yaml", stranger))
    assert done.returncode == 2
    assert "does not know LocalQueue of kueue.x-k8s.io/v1" in done.stderr


def test_a_flaky_server_is_asked_again(server, submit, write):
    def takes_its_time(stage):
        pod = stage.pod()
        stage.run(pod)
        time.sleep(6)
        stage.end(pod)
        stage.complete()

    play(server, train=takes_its_time)
    busy = RefusalError(429, "TooManyRequests", "too many requests")
    down = RefusalError(503, "ServiceUnavailable", "etcd leader changed")
    for verb in ("get", "patch", "list", "watch"):
        server.refusals += [(verb, "*", busy), (verb, "*", down)]
    done = submit(write("t.yaml", job("train")))
    assert done.returncode == 0, done.stderr
    assert not server.refusals


@pytest.mark.parametrize(
    ("status", "tries"),
    [*((status, 5) for status in (429, 500, 502, 503, 504)), (400, 1), (403, 1), (409, 1), (501, 1)],
)
def test_what_may_pass_is_tried_again_four_times_with_longer_and_longer_pauses(
    server, tmp_path, monkeypatch, status, tries
):
    slept: list[float] = []
    clock = SimpleNamespace(sleep=slept.append, time=time.time)
    monkeypatch.setattr("urllib3.util.retry.time", clock)
    config = server.kubeconfig(tmp_path / "kubeconfig")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(config))
    cluster = connect(None, None)
    server.refusals = [("get", "jobs", RefusalError(status, "Refused", "not now"))] * 9
    with pytest.raises(UnreachableError if tries > 1 else RefusedError, match="not now"):
        cluster.get(job("train"))
    assert 9 - len(server.refusals) == tries
    assert slept == ([1, 2, 4] if tries > 1 else [])
