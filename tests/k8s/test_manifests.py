"""The manifests as files: valid, whole, each on its own and all together."""

import re

import kubernetes_validate
import pytest
import yaml

from tests.conftest import ROOT
from tests.k8s.manifests import (
    FILES,
    INSTANCE,
    K8S,
    STAGES,
    every,
    file_of,
    objects,
    of_kind,
    pods,
    quantity,
    template,
    where,
)

# The oldest version that the manifests promise to work on, and the newest that the schemas know.
VERSIONS = ("1.30", kubernetes_validate.latest_version())
OURS = [path for path in FILES if path.name != "rbac.yaml"]


def named(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("source", where(), ids=named)
def test_every_object_has_the_form_that_kubernetes_gives_it(source, version):
    for each in every(source):
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("source", where(), ids=named)
def test_no_list_is_empty_for_a_cluster_drops_it_and_finds_a_change_at_each_apply(source):
    def lists(value):
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        return [value] * isinstance(value, list) + [each for one in inner for each in lists(one)]

    assert [] not in lists(every(source))


@pytest.mark.parametrize("path", OURS, ids=named)
def test_a_manifest_opens_with_its_purpose_and_the_commands_for_it(path):
    header = re.match(r"(#.*\n)+", path.read_text())
    assert header, f"{path.name} does not open with a comment"
    assert not header[0].startswith(("# Apply", "#\n"))
    for command in ("Apply", "Watch", "Logs", "Clean"):
        assert re.search(rf"^# {command}: +kubectl ", header[0], re.MULTILINE), command
    for word in ("apply", "delete"):
        assert f"kubectl {word} -f k8s/{path.name}" in header[0]


@pytest.mark.parametrize("path", OURS, ids=named)
def test_a_headers_commands_are_about_the_files_own_objects_but_for_the_pod_that_copies(path):
    for line in path.read_text().splitlines():
        if not line.startswith("#") or "kubectl" not in line:
            continue
        copies = line.startswith("# Fetch:") or "kubectl cp" in line
        about = K8S / "archive-pod.yaml" if copies else path
        names = {each["metadata"]["name"] for each in objects(about)}
        assert set(re.findall(r"\bcanopy-[a-z]+", line)) <= names, line
        assert set(re.findall(r"k8s/([\w-]+\.yaml)", line)) <= {about.name}, line


@pytest.mark.parametrize("path", OURS, ids=named)
def test_lines_fit_into_a_terminal(path):
    assert max(map(len, path.read_text().splitlines())) <= 118


@pytest.mark.parametrize("path", FILES, ids=named)
def test_no_key_is_given_twice(path):
    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader, node):
        keys = [loader.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{path.name}: {keys}"
        return yaml.SafeLoader.construct_mapping(loader, node, deep=True)

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    list(yaml.load_all(path.read_text(), Strict))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_holds_all_that_it_refers_to_but_the_claim(stage):
    found = objects(file_of(stage))
    have = {(each["kind"], each["metadata"]["name"]) for each in found}
    (workload,) = of_kind(found, "Job", "Deployment")
    spec = template(workload)["spec"]
    assert ("ServiceAccount", spec["serviceAccountName"]) in have
    assert of_kind(found, "NetworkPolicy")
    for container in spec["containers"]:
        for source in container["envFrom"]:
            assert source.keys() == {"configMapRef"}
            assert source["configMapRef"].keys() == {"name"}, "no pod starts without its settings"
            assert ("ConfigMap", source["configMapRef"]["name"]) in have
    claims = [
        v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"] if "persistentVolumeClaim" in v
    ]
    assert claims == ["canopy-data"]
    assert ("PersistentVolumeClaim", "canopy-data") not in have


def test_no_two_manifests_share_an_object_so_that_each_can_be_deleted_alone():
    claims = {K8S / "storage.yaml", K8S / "storage-single-node.yaml"}
    owned = [
        (each["kind"], each["metadata"]["name"])
        for path in FILES
        if path not in claims
        for each in objects(path)
    ]
    assert len(owned) == len(set(owned))


def test_both_claims_are_the_same_but_for_how_many_nodes_may_mount_them():
    many, single = (objects(K8S / name)[0] for name in ("storage.yaml", "storage-single-node.yaml"))
    assert many["metadata"]["name"] == single["metadata"]["name"] == "canopy-data"
    assert many["spec"]["accessModes"] == ["ReadWriteMany"]
    assert single["spec"]["accessModes"] == ["ReadWriteOnce"]
    for claim in (many, single):  # Kaggle's archive, its records and submission, and a search's trials
        assert quantity(claim["spec"]["resources"]["requests"]["storage"]) >= 10 * 2**30


@pytest.mark.parametrize("path", FILES, ids=named)
def test_objects_and_their_pods_carry_the_recommended_labels_and_no_namespace(path):
    for each in objects(path):
        labels = {"app.kubernetes.io/name": "canopy", INSTANCE: each["metadata"]["name"]}
        for metadata in (each["metadata"], *(pod["metadata"] for _, pod in pods([each]))):
            assert metadata["labels"] == labels
            assert "namespace" not in metadata, "the namespace is the user's"


def test_a_second_run_is_one_substitution_away():
    text = file_of("train").read_text()
    other = list(yaml.safe_load_all(text.replace("canopy-train", "canopy-train-b")))
    for each in other:
        assert each["metadata"]["name"] == "canopy-train-b"
        assert "canopy-train-b" in yaml.safe_dump(each.get("spec", each))
    assert not re.search(r"canopy-train(?!-b)", yaml.safe_dump_all(other))


@pytest.mark.parametrize("source", where(), ids=named)
def test_no_secret_is_in_any_manifest(source):
    for each in every(source):
        assert each["kind"] != "Secret"
        text = yaml.safe_dump(each).lower()
        for word in ("password", "secretkeyref", "api_key", "apikey", "token:", "credential", "private_key"):
            assert word not in text.replace("automountserviceaccounttoken:", ""), word


def test_the_base_holds_every_stage_and_no_data():
    named_in_base = yaml.safe_load((K8S / "kustomization.yaml").read_text())["resources"]
    assert sorted(named_in_base) == sorted(file_of(stage).name for stage in STAGES)
