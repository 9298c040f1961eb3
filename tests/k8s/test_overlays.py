"""The overlays: each changes what it is for, and nothing else."""

import copy
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.k8s.manifests import (
    K8S,
    OVERLAYS,
    STAGES,
    file_of,
    objects,
    of_kind,
    quantity,
    rendered,
    template,
    the,
)

CPU, GKE, KUEUE, REGISTRY = (
    next(path for path in OVERLAYS if path.name == name) for name in ("cpu", "gke", "kueue", "registry")
)
DOCS = ROOT / "docs"
GPU = "nvidia.com/gpu"


def by_name(found):
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def workload_of(found, stage):
    (one,) = (
        each for each in of_kind(found, "Job", "Deployment") if each["metadata"]["name"] == f"canopy-{stage}"
    )
    return one


def test_the_base_renders_to_the_manifests_themselves():
    plain = [each for stage in STAGES for each in objects(file_of(stage))]
    assert by_name(rendered(K8S)) == by_name(plain)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_an_overlay_makes_the_same_objects_and_takes_one_stage_at_a_time(overlay):
    assert by_name(rendered(overlay)).keys() == by_name(rendered(K8S)).keys()
    for stage in STAGES:
        chosen = [
            each
            for each in rendered(overlay)
            if each["metadata"]["labels"]["app.kubernetes.io/instance"] == f"canopy-{stage}"
        ]
        assert by_name(chosen).keys() == by_name(objects(file_of(stage))).keys()


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_an_overlay_is_short_and_says_how_to_apply_it(overlay):
    text = (overlay / "kustomization.yaml").read_text()
    assert [path.name for path in overlay.iterdir() if path.suffix != ".bak"] == ["kustomization.yaml"]
    for word, command in (("Apply", "apply"), ("Clean", "delete")):
        assert f"# {word}:  kubectl {command} -k infra/overlays/{overlay.name}" in text
    assert set(yaml.safe_load(text)) <= {
        "apiVersion",
        "kind",
        "sortOptions",
        "resources",
        "images",
        "patches",
    }


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
@pytest.mark.parametrize("stage", STAGES)
def test_a_policy_is_there_before_the_pods_it_is_for(overlay, stage):
    kinds = [each["kind"] for each in rendered(overlay) if each["metadata"]["name"] == f"canopy-{stage}"]
    assert kinds.index("NetworkPolicy") < max(map(kinds.index, {"Job", "Deployment"} & set(kinds)))


def test_without_a_gpu_no_pod_asks_for_one_and_all_else_stays():
    before, after = by_name(rendered(K8S)), by_name(rendered(CPU))
    expected = copy.deepcopy(before)
    for stage in ("train", "tune"):
        expected["ConfigMap", f"canopy-{stage}"]["data"]["REQUIRE_GPU"] = "false"
        (container,) = template(expected["Job", f"canopy-{stage}"])["spec"]["containers"]
        container["image"] = "canopy:0.1.0"
        del container["resources"]["limits"][GPU]
        container["resources"]["requests"]["memory"] = "3Gi"
    for job in of_kind(list(expected.values()), "Job"):
        (container,) = template(job)["spec"]["containers"]
        container["resources"]["requests"]["cpu"] = "400m"
    assert after == expected


def test_without_a_gpu_a_gang_and_the_archive_pod_fit_a_node_of_two_cores_beside_kind_itself():
    asked = quantity("950m")  # kubectl describe node: the control plane, CoreDNS and kindnet of a new cluster
    job = by_name(rendered(CPU))["Job", "canopy-train"]
    pods = [of_kind(objects(K8S / "archive-pod.yaml"), "Pod")[0]] + [template(job)] * job["spec"][
        "parallelism"
    ]
    for pod in pods:
        (container,) = pod["spec"]["containers"]
        asked += quantity(container["resources"]["requests"]["cpu"])
    assert asked <= 2


def test_from_a_registry_every_image_keeps_its_tag_and_all_else_stays():
    before, after = by_name(rendered(K8S)), by_name(rendered(REGISTRY))
    expected = copy.deepcopy(before)
    for stage in STAGES:
        (container,) = template(workload_of(list(expected.values()), stage))["spec"]["containers"]
        container["image"] = f"REGISTRY/{container['image']}"
    assert after == expected


def test_from_a_registry_the_commands_shown_name_it_for_every_pod_the_archives_too():
    text = (DOCS / "kubernetes.md").read_text()
    (script,) = re.findall(r"sed -i\.bak '([^']+)' infra/overlays/registry/kustomization.yaml", text)
    assert f"'{script}'" in (REGISTRY / "kustomization.yaml").read_text()
    (archive,) = re.findall(
        r"sed '([^']+)' k8s/archive-pod.yaml \| kubectl apply -f k8s/storage.yaml -f -", text
    )
    for one, path in ((script, REGISTRY / "kustomization.yaml"), (archive, K8S / "archive-pod.yaml")):
        done = subprocess.run(["sed", one, path], capture_output=True, text=True, check=True)
        asked = re.sub(r"^#.*\n", "", done.stdout, flags=re.MULTILINE)
        assert re.search(r"(newName|image): registry\.example\.com/team/canopy\b", asked)
        assert "REGISTRY" not in asked


def test_with_kueue_every_job_waits_for_its_queue():
    before, after = by_name(rendered(K8S)), by_name(rendered(KUEUE))
    expected = copy.deepcopy(before)
    for job in of_kind(list(expected.values()), "Job"):
        job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "canopy"
    assert after == expected


def test_with_kueue_it_is_told_which_resources_the_queue_has_to_cover():
    asked = {
        name
        for job in of_kind(rendered(KUEUE), "Job")
        for container in template(job)["spec"]["containers"]
        for kind in ("requests", "limits")
        for name in container["resources"][kind]
    }
    header = (KUEUE / "kustomization.yaml").read_text().partition("\napiVersion")[0]
    assert [name for name in asked if name not in header] == []
    assert "resources.excludeResourcePrefixes" in header


def test_on_gke_no_stage_but_tuning_needs_the_claim_and_all_data_is_in_the_bucket():
    found = rendered(GKE)
    for stage in STAGES:
        workload = workload_of(found, stage)
        volumes = {each["name"]: each for each in template(workload)["spec"]["volumes"]}
        assert ("persistentVolumeClaim" in volumes["data"]) == (stage == "tune")
        settings = the(found, "ConfigMap", f"canopy-{stage}")["data"]
        left = {name: value for name, value in settings.items() if value.startswith("/data/")}
        assert left == ({"STUDY": "/data/tune/study.log"} if stage == "tune" else {})


@pytest.mark.parametrize(
    "told",
    [GKE / "kustomization.yaml", DOCS / "kubernetes.md", ROOT / "infra" / "terraform" / "outputs.tf"],
    ids=lambda path: path.name,
)
def test_on_gke_the_command_that_fills_in_the_placeholders_leaves_none(told, tmp_path):
    (script,) = re.findall(r"sed -i\.bak '([^']+)' infra/overlays/gke/kustomization.yaml", told.read_text())
    script = re.sub(r"\$\{.+?\}", "mine", script)  # Terraform's own placeholders
    copied = shutil.copy(GKE / "kustomization.yaml", tmp_path)
    subprocess.run(["sed", "-i", script, copied], check=True)
    asked = [line for line in Path(copied).read_text().splitlines() if not line.startswith("#")]
    assert [line for line in asked if re.search("PROJECT|BUCKET|REGION", line)] == []


def test_on_gke_the_bucket_is_laid_out_as_the_claim_is():
    before, after = rendered(K8S), rendered(GKE)
    for stage in set(STAGES) - {"tune"}:
        here = the(before, "ConfigMap", f"canopy-{stage}")["data"]
        there = the(after, "ConfigMap", f"canopy-{stage}")["data"]
        assert {k: v.replace("gs://BUCKET/", "/data/") for k, v in there.items()} == here


def test_on_gke_pods_ask_for_all_the_storage_that_they_may_use():
    for stage in STAGES:
        before, after = (
            template(workload_of(rendered(folder), stage))["spec"]["containers"][0]["resources"]
            for folder in (K8S, GKE)
        )
        # Autopilot lowers a limit of ephemeral storage to the request.
        assert after["requests"]["ephemeral-storage"] == after["limits"]["ephemeral-storage"]
        assert after["limits"] == before["limits"]


def test_on_gke_pods_are_who_they_are_without_a_key():
    for account in of_kind(rendered(GKE), "ServiceAccount"):
        assert account["metadata"]["annotations"] == {
            "iam.gke.io/gcp-service-account": "canopy@PROJECT.iam.gserviceaccount.com"
        }
        assert account["automountServiceAccountToken"] is False


def test_on_gke_gpu_pods_name_their_gpu_and_images_come_from_the_projects_registry():
    for stage in STAGES:
        spec = template(workload_of(rendered(GKE), stage))["spec"]
        on_gpu = stage in {"train", "tune"}
        assert ("cloud.google.com/gke-accelerator" in spec.get("nodeSelector", {})) == on_gpu
        tag = "0.1.0-gpu" if on_gpu else "0.1.0"
        assert spec["containers"][0]["image"] == f"REGION-docker.pkg.dev/PROJECT/canopy/canopy:{tag}"
