"""infra/terraform parses, is formatted and pinned, and fits the manifests and the overlay that use it."""

import re
import shutil
import subprocess

import hcl2
import kubernetes_validate
import pytest
import yaml

from tests.conftest import ROOT
from tests.infra.conftest import k8s_manifests

FOLDER = ROOT / "infra" / "terraform"
FILES = sorted(FOLDER.glob("*.tf"))
OVERLAY = ROOT / "infra" / "overlays" / "gke" / "kustomization.yaml"


def unquoted(value):
    if isinstance(value, str):
        return value.strip('"')
    if isinstance(value, list):
        return [unquoted(item) for item in value]
    if isinstance(value, dict):
        return {unquoted(key): unquoted(item) for key, item in value.items()}
    return value


def blocks(kind):
    """Every block of a kind in all files: {(labels): body}."""
    found = {}
    for path in FILES:
        with path.open() as file:
            parsed = unquoted(hcl2.load(file))
        for block in parsed.get(kind, []):
            labels: list[str] = []
            body = block
            while len(labels) < {"resource": 2, "variable": 1, "output": 1}.get(kind, 0):
                ((label, body),) = [(k, v) for k, v in body.items() if not k.startswith("__")]
                labels.append(label)
            found[tuple(labels)] = body
    return found


def first(value):
    return value[0] if isinstance(value, list) else value


def test_every_file_parses_and_there_is_something_in_it():
    assert {path.name for path in FILES} >= {"main.tf", "variables.tf", "outputs.tf", "versions.tf"}
    assert len(blocks("resource")) > 10


def test_the_files_are_formatted():
    if shutil.which("terraform"):
        words = ["terraform", f"-chdir={FOLDER}", "fmt", "-check", "-diff"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    for path in FILES:
        for line in path.read_text().splitlines():
            assert line == line.rstrip(), path
            assert "\t" not in line, path
            assert (len(line) - len(line.lstrip())) % 2 == 0, (path, line)


def test_terraform_and_the_provider_are_pinned_to_a_major_version():
    text = (FOLDER / "versions.tf").read_text()
    assert re.search(r'required_version = ">= [\d.]+, < 2\.0"', text)
    assert re.search(r'version = "~> \d+\.\d+"', text)


def test_every_variable_and_output_says_what_it_is_and_only_the_project_must_be_given():
    assert all(body.get("description") for body in [*blocks("variable").values(), *blocks("output").values()])
    assert [name for (name,), body in blocks("variable").items() if "default" not in body] == ["project"]


def test_every_account_that_the_manifests_name_may_stand_for_the_google_account():
    named = {
        item["metadata"]["name"]
        for path in k8s_manifests()
        for item in yaml.safe_load_all(path.read_text())
        if item["kind"] == "ServiceAccount"
    }
    listed = set(re.findall(r'^    "(canopy-[a-z]+)",$', (FOLDER / "identity.tf").read_text(), re.MULTILINE))
    assert named - listed <= {"canopy-archive"}  # copies the archive to a claim: there is none with a bucket
    assert listed <= named


def test_the_overlay_uses_the_names_that_terraform_gives():
    text = OVERLAY.read_text()
    account = blocks("resource")["google_service_account", "pods"]
    assert account["account_id"] == "${local.name}"
    assert "canopy@PROJECT.iam.gserviceaccount.com" in text
    assert "REGION-docker.pkg.dev/PROJECT/canopy/canopy" in text
    gpu = blocks("variable")["gpu_type",]["default"]
    assert f"cloud.google.com/gke-accelerator: {gpu}" in text


@pytest.mark.parametrize("pool", ["cpu", "gpu"])
def test_a_pools_nodes_have_an_account_of_their_own_and_hide_it_from_pods(pool):
    config = first(blocks("resource")["google_container_node_pool", pool]["node_config"])
    assert config["service_account"] == "${google_service_account.nodes.email}"
    assert first(config["workload_metadata_config"])["mode"] == "GKE_METADATA"
    assert first(config["shielded_instance_config"])["enable_secure_boot"] is True


def test_the_cluster_enforces_the_manifests_policies_and_its_nodes_have_no_public_address():
    cluster = blocks("resource")["google_container_cluster", "canopy"]
    assert cluster["datapath_provider"] == "ADVANCED_DATAPATH"
    assert first(cluster["private_cluster_config"])["enable_private_nodes"] is True


def test_pods_and_services_have_the_ranges_that_the_network_names():
    resources = blocks("resource")
    policy = first(resources["google_container_cluster", "canopy"]["ip_allocation_policy"])
    ranges = resources["google_compute_subnetwork", "nodes"]["secondary_ip_range"]
    asked = [policy["cluster_secondary_range_name"], policy["services_secondary_range_name"]]
    assert asked == [each["range_name"] for each in ranges]


def test_pods_are_known_by_the_clusters_own_pool_of_identities():
    resources = blocks("resource")
    pool = first(resources["google_container_cluster", "canopy"]["workload_identity_config"])["workload_pool"]
    member = resources["google_service_account_iam_member", "workload_identity"]["member"]
    assert member == f"serviceAccount:{pool}[${{var.namespace}}/${{each.value}}]"
    assert pool == "${var.project}.svc.id.goog"


def test_gpu_nodes_have_a_driver_that_is_new_enough_and_are_as_many_as_asked_for():
    pool = blocks("resource")["google_container_node_pool", "gpu"]
    assert first(pool["autoscaling"])["total_max_node_count"] == "${var.gpu_nodes_max}"
    gpu = first(first(pool["node_config"])["guest_accelerator"])
    assert gpu["type"] == "${var.gpu_type}"
    # TensorFlow's CUDA asks for 555, which GKE's default may be older than.
    assert first(gpu["gpu_driver_installation_config"])["gpu_driver_version"] == "LATEST"


def test_a_tag_means_one_image_for_ever():
    images = blocks("resource")["google_artifact_registry_repository", "images"]
    assert first(images["docker_config"])["immutable_tags"] is True


def test_no_gpu_node_is_there_while_nothing_trains():
    pool = blocks("resource")["google_container_node_pool", "gpu"]
    assert pool["initial_node_count"] == 0
    assert first(pool["autoscaling"])["total_min_node_count"] == 0
    assert first(first(pool["node_config"])["taint"])["key"] == "nvidia.com/gpu"


def test_the_apis_that_the_rest_stands_on_are_enabled():
    text = (FOLDER / "main.tf").read_text()
    pools = [body for (kind, _), body in blocks("resource").items() if kind == "google_container_node_pool"]
    streamed = [first(first(pool["node_config"])["gcfs_config"])["enabled"] for pool in pools]
    assert all(streamed) == ("containerfilesystem.googleapis.com" in text)
    # Without it the provider can read no project, nor its policy, and so cannot enable it either.
    assert '"cloudresourcemanager.googleapis.com"' in text
    assert "gcloud services enable cloudresourcemanager.googleapis.com" in text


def test_nodes_with_an_account_of_their_own_may_stream_images():
    resources = blocks("resource")
    granted = {
        body["role"]
        for (kind, _), body in resources.items()
        if kind == "google_project_iam_member" and body["member"] == "${google_service_account.nodes.member}"
    }
    # GKE asks it of every account but the default one: the role for nodes has no serviceusage.services.use.
    assert "roles/serviceusage.serviceUsageConsumer" in granted


def test_the_bucket_is_nobody_elses():
    bucket = blocks("resource")["google_storage_bucket", "data"]
    assert bucket["uniform_bucket_level_access"] is True
    assert bucket["public_access_prevention"] == "enforced"


def test_what_is_read_every_day_is_not_moved_to_storage_that_charges_for_reading():
    bucket = blocks("resource")["google_storage_bucket", "data"]
    actions = {first(rule["action"])["type"] for rule in bucket["lifecycle_rule"]}
    assert actions == {"Delete", "AbortIncompleteMultipartUpload"}
    assert first(bucket["autoclass"])["enabled"] is True


def test_nothing_is_deleted_by_age_but_what_was_replaced_or_deleted_before():
    bucket = blocks("resource")["google_storage_bucket", "data"]
    (deleted,) = (rule for rule in bucket["lifecycle_rule"] if first(rule["action"])["type"] == "Delete")
    assert first(deleted["condition"]).keys() - {"__is_block__"} == {"days_since_noncurrent_time"}


def test_no_role_is_wider_than_it_has_to_be():
    roles = {body["role"] for (kind, _), body in blocks("resource").items() if "_iam_" in kind}
    assert roles == {
        "roles/artifactregistry.reader",
        "roles/container.defaultNodeServiceAccount",
        "roles/iam.workloadIdentityUser",
        "roles/serviceusage.serviceUsageConsumer",
        "roles/storage.legacyBucketReader",
        "roles/storage.objectUser",
    }


def test_pods_may_use_the_buckets_objects_and_look_at_the_bucket_itself_by_hand_too(tmp_path):
    granted = [
        body for (kind, _), body in blocks("resource").items() if kind == "google_storage_bucket_iam_member"
    ]
    for body in granted:
        assert body["bucket"] == "${google_storage_bucket.data.name}"
        assert body["member"] == "${google_service_account.pods.member}"
    roles = {body["role"] for body in granted}
    # TensorFlow's makedirs asks for the bucket (storage.buckets.get), which the role for objects lacks.
    assert roles == {"roles/storage.objectUser", "roles/storage.legacyBucketReader"}
    assert {words[5] for words in by_hand(tmp_path) if words[1] == "buckets"} == roles


def test_every_account_of_the_manifests_may_stand_for_the_google_account_by_hand_too(tmp_path):
    listed = re.findall(r'^    "(canopy-[a-z]+)",$', (FOLDER / "identity.tf").read_text(), re.MULTILINE)
    bound = [words for words in by_hand(tmp_path) if words[1] == "service-accounts"]
    (granted,) = (
        body for (kind, _), body in blocks("resource").items() if kind == "google_service_account_iam_member"
    )
    assert {words[5] for words in bound} == {granted["role"]}
    member = granted["member"].replace("${var.project}", "PROJECT").replace("${var.namespace}", "NAMESPACE")
    assert {words[7] for words in bound} == {member.replace("${each.value}", name) for name in listed}


def test_tunings_volume_is_made_in_the_network_of_its_nodes():
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    storage = yaml.safe_load(shown)
    kubernetes_validate.validate(storage, "1.30", strict=True)
    # Filestore's driver takes the network `default` where a class names none.
    assert blocks("resource")["google_compute_network", "canopy"]["name"] == "${local.name}"
    assert storage["parameters"]["network"] == "canopy"


def test_nodes_have_the_same_roles_by_hand_too(tmp_path):
    granted = {
        kind: {
            body["role"]
            for (each, _), body in blocks("resource").items()
            if each == kind and body["member"] == "${google_service_account.nodes.member}"
        }
        for kind in ("google_project_iam_member", "google_artifact_registry_repository_iam_member")
    }
    bound = [words for words in by_hand(tmp_path) if words[0] == "projects"]
    assert {words[4] for words in bound} == granted["google_project_iam_member"]
    # Where its own roles are not granted by themselves, the default account can pull nothing.
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    (role,) = re.findall(r"artifacts repositories add-iam-policy-binding [^\n]*\\\n +--role (\S+)", text)
    assert {role} == granted["google_artifact_registry_repository_iam_member"]


def by_hand(tmp_path):
    """The words of every binding that the documents' loops ask gcloud for."""
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    loops = re.findall(r"^    for \w+ in [^;]*; do\n      gcloud .*?; done$", text, re.MULTILINE | re.DOTALL)
    gcloud = tmp_path / "gcloud"
    gcloud.write_text('#!/bin/sh\necho "$@"\n')
    gcloud.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", "\n".join(loops)],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split() for line in done.stdout.splitlines()]
