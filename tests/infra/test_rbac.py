"""k8s/rbac.yaml gives what `infra.submit` needs for the manifests at hand, and nothing else."""

import time

import yaml

from tests.infra.conftest import RBAC, k8s_manifests, role_rules
from tests.infra.playing import play

# storage-single-node.yaml stands in for storage.yaml; the others are for kubectl.
SUBMITTED = [
    path for path in k8s_manifests() if path.name == "storage.yaml" or path.name.endswith("-job.yaml")
]


def granted():
    return {
        (verb, group, resource)
        for rule in role_rules()
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def waits_a_little(stage):
    pod = stage.pod()
    stage.touch()
    time.sleep(1)
    stage.run(pod)
    time.sleep(0.2)
    stage.end(pod)
    stage.complete()


def test_every_right_is_used_and_none_is_missing(server, submit):
    play(server, canopy_preprocess=waits_a_little)
    assert len(SUBMITTED) >= 4
    done = submit(*SUBMITTED, "--follow")
    assert done.returncode == 0, done.stderr
    gone = submit(*SUBMITTED, "--delete", "--delete_claims")
    assert gone.returncode == 0, gone.stderr
    assert server.asked == granted()


def test_it_opens_no_way_to_secrets_shells_or_rights():
    resources = {resource for _, _, resource in granted()}
    assert not resources & {"secrets", "pods/exec", "pods/attach", "roles", "rolebindings", "*"}
    assert "*" not in {verb for verb, _, _ in granted()}


def test_the_binding_binds_the_role():
    role, binding = yaml.safe_load_all(RBAC.read_text())
    group = role["apiVersion"].partition("/")[0]
    assert binding["roleRef"] == {"apiGroup": group, "kind": "Role", "name": role["metadata"]["name"]}
