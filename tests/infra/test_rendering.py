"""`infra.submit --overlay`: each stage at its turn, as the overlay has it."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.infra.conftest import job, settings_map
from tests.infra.playing import play
from tests.k8s.manifests import kubectl


@pytest.fixture
def overlay(tmp_path, monkeypatch):
    """Writes an overlay on the manifests that lie beside its folder; kubectl is in PATH."""
    monkeypatch.setenv("PATH", str(Path(kubectl()).parent), prepend=":")
    folder = tmp_path / "overlay"
    folder.mkdir()

    def overlay(*resources, **more):
        for each in resources:
            shutil.copy(each, folder)
        text = {"kind": "Kustomization", "resources": [each.name for each in resources]} | more
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(text))
        return folder

    return overlay


def images(server):
    return {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]["containers"][0]["image"]
        for each in server.store.list("jobs")
    }


def test_stages_run_one_after_the_other_with_what_the_overlay_changes(server, submit, write, overlay):
    order = []

    def stage(stage):
        order.append(f"{stage.job} starts beside {sorted(images(server))}")
        stage.end(stage.pod())
        stage.complete()

    play(server, first=stage, second=stage)
    first = write("1.yaml", settings_map("first", A="1"), job("first"))
    second, other = write("2.yaml", job("second")), write("3.yaml", job("other"))
    folder = overlay(
        other, second, first, images=[{"name": "canopy", "newName": "registry.example.com/canopy"}]
    )
    done = submit(first, second, "--overlay", folder)
    assert done.returncode == 0, done.stderr
    assert order == ["first starts beside ['first']", "second starts beside ['first', 'second']"]
    assert images(server) == dict.fromkeys(("first", "second"), "registry.example.com/canopy:0.1.0")
    assert server.store.get("configmaps", "first")["data"] == {"A": "1"}
    assert submit(first, second, "--overlay", folder, "--delete").returncode == 0
    assert not server.store.list("jobs")


@pytest.mark.parametrize("name", ["cpu", "gke", "kueue", "registry"])
def test_every_overlay_of_canopys_takes_the_manifests(server, submit, name, overlay):
    play(server)
    paths = [ROOT / "k8s" / f"{stage}-job.yaml" for stage in ("preprocess", "train", "predict", "evaluate")]
    done = submit(*paths, "--overlay", ROOT / "infra" / "overlays" / name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("succeeded") == len(paths)


def test_an_overlay_may_name_the_namespace_that_files_leave_open(server, submit, write, overlay):
    play(server)
    path = write("t.yaml", job("train"))
    assert submit(path, "--overlay", overlay(path, namespace="lab")).returncode == 0
    done = submit(path, "--overlay", overlay(path, namespace="elsewhere"))
    assert done.returncode == 2
    assert "names the namespace elsewhere" in done.stderr
    named = job("train")
    named["metadata"]["namespace"] = ""  # left blank is left open
    path = write("t.yaml", named)
    assert submit(path, "--overlay", overlay(path, namespace="lab")).returncode == 0
    named["metadata"]["namespace"] = "lab"
    path = write("t.yaml", named)
    done = submit(path, "--overlay", overlay(path, namespace="elsewhere"))
    assert done.returncode == 2
    assert "has no job/train" in done.stderr


def test_a_warning_of_kubectls_is_no_failure(server, submit, write, overlay):
    play(server)
    path = write("t.yaml", job("train"))
    folder = overlay(path, commonLabels={"team": "forest"})
    warned = subprocess.run([kubectl(), "kustomize", folder], capture_output=True, check=True)
    assert warned.stderr
    assert submit(path, "--overlay", folder).returncode == 0
    assert server.store.get("jobs", "train")["metadata"]["labels"] == {"team": "forest"}


def test_an_object_that_the_overlay_lacks_is_named_with_its_file(server, submit, write, overlay):
    path, missing = write("t.yaml", job("train")), write("m.yaml", settings_map("loose", A="1"))
    folder = overlay(path)
    done = submit(path, missing, "--overlay", folder)
    assert done.returncode == 2
    assert f"--overlay {folder} has no configmap/loose, which {missing} holds" in done.stderr
    assert not server.store.objects


def test_an_overlay_that_cannot_be_rendered_is_told_in_one_sentence(server, submit, write, overlay):
    path = write("t.yaml", job("train"))
    (overlay(path) / "t.yaml").unlink()
    done = submit(path, "--overlay", path.parent / "overlay")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot be rendered by kubectl kustomize: " in done.stderr
    assert "t.yaml" in done.stderr


def test_without_kubectl_it_is_told_who_renders(server, submit, write, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = submit(write("t.yaml", job("train")), "--overlay", tmp_path)
    assert done.returncode == 2
    assert "--overlay is rendered by kubectl, which is not in PATH" in done.stderr


def test_a_kubectl_that_cannot_be_started_is_told(server, submit, write, tmp_path, monkeypatch):
    (tmp_path / "kubectl").write_text("no program")
    monkeypatch.setenv("PATH", str(tmp_path))
    done = submit(write("t.yaml", job("train")), "--overlay", tmp_path)
    assert done.returncode == 2
    assert "rendered by kubectl, which cannot be started" in done.stderr
