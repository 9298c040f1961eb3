"""What `infra.submit` takes for a manifest, and how it refuses what is none."""

import pytest

from infra import manifests
from infra.submit import main
from tests.infra.conftest import job, settings_map


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no Kubernetes object"),
        ("kind: Job\n  name: x", "is not valid YAML at line 2, column 7"),
        ("a: \a", "is not valid YAML: it cannot be parsed"),
        ("- a\n- b\n", "document 1 is no Kubernetes object but list"),
        ("kind: List\nitems: 3\n", "document 1 is no Kubernetes object but int"),
        ("kind: List\n", "holds no Kubernetes object"),
        ("---\n---\n3\n", "document 2 is no Kubernetes object but int"),
        ("kind: Job\nmetadata: {name: x}\n", "document 1 has no apiVersion"),
        ("apiVersion: v1\nmetadata: {name: x}\n", "document 1 has no kind"),
        ("apiVersion: v1\nkind: 1\nmetadata: {name: x}\n", "document 1 has no kind"),
        ("apiVersion: v1\nkind: Job\nmetadata: x\n", "(Job) has no metadata.name"),
        ("apiVersion: v1\nkind: Job\nmetadata: {name: 1}\n", "(Job) has no metadata.name"),
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
    assert shown.count("\n") == 1


def test_words_of_any_language_are_read(write):
    path = write("t.yaml")
    path.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: Müll}\n", "utf-8")
    (found,) = manifests.load([str(path)])
    assert found.objects[0]["data"] == {"a": "Müll"}


def test_a_file_that_is_no_text_is_refused_by_name(tmp_path, capsys):
    path = tmp_path / "job.yaml"
    path.write_bytes(b"\xff\xfe")
    assert main([str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {path} cannot be read: ")


def test_a_list_is_taken_apart_and_kubernetes_own_jobs_alone_are_followed(write):
    stranger = {"apiVersion": "batch.volcano.sh/v1alpha1", "kind": "Job", "metadata": {"name": "other"}}
    cron = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"}}
    items = [settings_map("one", A="1"), stranger, cron, job("train")]
    path = write("t.yaml", None, {"apiVersion": "v1", "kind": "List", "items": items})
    (found,) = manifests.load([str(path)])
    titles = ["configmap/one", "job/other", "cronjob/nightly", "job/train"]
    assert [*map(manifests.title, found.objects)] == titles
    assert [*map(manifests.title, found.jobs)] == ["job/train"]


@pytest.mark.parametrize(("name", "words"), [("missing.yaml", "no such manifest"), (".", "is a folder")])
def test_a_path_that_is_no_file_is_refused(tmp_path, capsys, name, words):
    assert main([str(tmp_path / name)]) == 2
    shown = capsys.readouterr().err
    assert str(tmp_path) in shown
    assert words in shown


def test_objects_of_another_namespace_are_refused_before_anything_is_applied(server, submit, write):
    stray = settings_map("stray", A="1")
    stray["metadata"]["namespace"] = "production"
    done = submit(write("t.yaml", settings_map("fine", A="1"), stray))
    assert done.returncode == 2
    assert "names the namespace production" in done.stderr
    assert not server.store.objects


@pytest.mark.parametrize("blank", [None, ""])
def test_a_namespace_that_is_left_blank_is_none(server, submit, write, blank):
    item = settings_map("blank", A="1")
    item["metadata"]["namespace"] = blank
    done = submit(write("t.yaml", item))
    assert done.returncode == 0, done.stderr
