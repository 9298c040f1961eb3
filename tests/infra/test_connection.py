"""How `infra.submit` finds its cluster, and what it says where there is none."""

import os
import socket
import subprocess
import sys

import pytest
import yaml

from infra import manifests
from infra.submit import main
from tests.conftest import ROOT
from tests.infra.conftest import job, settings_map
from tests.infra.playing import play


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


def test_a_page_in_place_of_an_answer_is_told(server, submit, write):
    server.pages = 9
    done = submit(write("t.yaml", job("train")))
    assert done.returncode == 2
    assert "cannot be reached: it answers with what is no JSON" in done.stderr
    assert done.stderr.count("\n") == 1


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


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--timeout", "-1"), "--timeout"),
        (("--patience", "-1"), "--patience"),
        (("--delete_claims",), "--delete_claims goes with --delete"),
        (("--delete", "--follow"), "--delete takes away"),
        (("--delete", "--replace"), "--delete takes away"),
        (("--nonsense",), "--nonsense"),
    ],
)
def test_flags_that_make_no_sense_are_refused_before_the_cluster_is_asked(write, capsys, flags, words):
    assert main([str(write("t.yaml", job("train"))), *flags]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no Kubernetes object"),
        ("kind: Job\n  name: x", "is not valid YAML at line 2"),
        ("- a\n- b\n", "document 1 is no Kubernetes object but list"),
        ("kind: Job\nmetadata: {name: x}\n", "document 1 has no apiVersion"),
        ("apiVersion: batch/v1\nkind: Job\nmetadata: {generateName: x-}\n", "has no metadata.name"),
        ("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n", "--overlay takes its folder"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused_by_name_and_place(tmp_path, capsys, text, words):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    assert main([str(path)]) == 2
    shown = capsys.readouterr().err
    assert str(path) in shown
    assert words in shown


def test_a_file_that_is_no_text_is_refused_by_name(tmp_path, capsys):
    path = tmp_path / "job.yaml"
    path.write_bytes(b"\xff\xfe")
    assert main([str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {path} cannot be read: ")


def test_a_list_is_taken_apart_and_kubernetes_own_jobs_alone_are_followed(write):
    stranger = {"apiVersion": "batch.volcano.sh/v1alpha1", "kind": "Job", "metadata": {"name": "other"}}
    items = [settings_map("one", A="1"), stranger, job("train")]
    path = write("t.yaml", {"apiVersion": "v1", "kind": "List", "items": items})
    (found,) = manifests.load([str(path)])
    assert [*map(manifests.title, found.objects)] == ["configmap/one", "job/other", "job/train"]
    assert [*map(manifests.title, found.jobs)] == ["job/train"]


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_path_that_is_no_file_is_refused(tmp_path, capsys, name):
    assert main([str(tmp_path / name)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_objects_of_another_namespace_are_refused_before_anything_is_applied(server, submit, write):
    stray = settings_map("stray", A="1")
    stray["metadata"]["namespace"] = "production"
    done = submit(write("t.yaml", settings_map("fine", A="1"), stray))
    assert done.returncode == 2
    assert "names the namespace production" in done.stderr
    assert not server.store.objects


def test_a_kind_that_the_cluster_does_not_know_is_named(server, submit, write):
    stranger = {"apiVersion": "kueue.x-k8s.io/v1", "kind": "LocalQueue", "metadata": {"name": "q"}}
    done = submit(write("t.yaml", stranger))
    assert done.returncode == 2
    assert "does not know LocalQueue of kueue.x-k8s.io/v1" in done.stderr
