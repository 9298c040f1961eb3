"""Every pod of every manifest and overlay: as safe as the platform can enforce, and bounded."""

import re

import pytest

from tests.k8s.manifests import INSTANCE, K8S, all_pods, containers, objects, quantity

# What Pod Security's "restricted" lets a pod mount:
# https://kubernetes.io/docs/concepts/security/pod-security-standards/
VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
every_pod = pytest.mark.parametrize("pod", all_pods())


@every_pod
def test_it_meets_pod_securitys_restricted_standard(pod):
    spec = pod["spec"]
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"sysctls", "windowsOptions", "seLinuxOptions", "appArmorProfile"} & context.keys()
    assert not {"hostNetwork", "hostPID", "hostIPC", "ephemeralContainers"} & spec.keys()
    for volume in spec["volumes"]:
        (kind,) = volume.keys() - {"name"}
        assert kind in VOLUMES
    for container in containers(pod):
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert not {"privileged", "procMount", "runAsUser", "runAsNonRoot", "seccompProfile"} & own.keys()
        assert not any("hostPort" in port for port in container.get("ports", []))
        assert "lifecycle" not in container
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):  # no host of its own, since 1.34
            handlers = container.get(probe, {})
            assert not any("host" in handlers.get(kind, {}) for kind in ("httpGet", "tcpSocket"))


@every_pod
def test_it_goes_beyond_the_standard_where_that_costs_nothing(pod):
    spec, context = pod["spec"], pod["spec"]["securityContext"]
    # High, so that it is no account of the node's; one number for every file on the volume.
    assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == 10001
    assert context["fsGroupChangePolicy"] == "OnRootMismatch", "else each start walks the whole volume"
    assert spec["automountServiceAccountToken"] is False
    assert spec["serviceAccountName"] != "default"
    assert spec["enableServiceLinks"] is False
    for container in containers(pod):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True


@every_pod
def test_it_can_write_where_libraries_do(pod):
    scratch = {v["name"] for v in pod["spec"]["volumes"] if "emptyDir" in v}
    for container in containers(pod):
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert mounts["/tmp"] in scratch
        assert {"name": "HOME", "value": "/tmp"} in container["env"]
        if container["command"][0] == "python":
            assert any(each["name"] == "USER" for each in container["env"]), "the image has no such account"


@every_pod
def test_the_data_is_only_read_by_tensorboard(pod):
    for container in containers(pod):
        (mount,) = (each for each in container["volumeMounts"] if each["name"] == "data")
        assert mount.get("readOnly", False) == (pod["metadata"]["labels"][INSTANCE] == "canopy-tensorboard")


@every_pod
def test_its_volumes_are_where_its_settings_look_for_them(pod):
    places = {"data": "/data", "tmp": "/tmp", "shm": "/dev/shm"}
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    for container in containers(pod):
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts == {name: places[name] for name in volumes}


@every_pod
def test_every_resource_has_a_request_and_a_limit(pod):
    limits = {}
    for container in containers(pod):
        resources = container["resources"]
        for name in ("cpu", "memory", "ephemeral-storage"):
            assert quantity(resources["requests"][name]) <= quantity(resources["limits"][name])
        if container["command"][0] == "python":
            assert quantity(resources["requests"]["memory"]) >= 2**30, "TensorFlow alone takes half of it"
        limits = resources["limits"]
    disk = memory = 0.0
    for volume in pod["spec"]["volumes"]:
        if "emptyDir" in volume:
            size = quantity(volume["emptyDir"]["sizeLimit"])
            if volume["emptyDir"].get("medium") == "Memory":
                memory += size
            else:
                disk += size
    assert memory <= quantity(limits["memory"]) / 4, "a memory-backed volume counts into the memory limit"
    assert disk <= quantity(limits["ephemeral-storage"]), "else the pod is evicted before /tmp is full"


@every_pod
def test_requests_fit_an_ordinary_node(pod):
    for container in containers(pod):
        assert quantity(container["resources"]["requests"]["cpu"]) <= 2
        assert quantity(container["resources"]["requests"]["memory"]) <= 6 * 2**30


@every_pod
def test_its_image_is_named_and_taken_from_the_node_where_it_is_there(pod):
    for container in containers(pod):
        assert re.search(r"(^|/)canopy:0\.1\.0(-gpu)?$", container["image"])
        assert container["imagePullPolicy"] == "IfNotPresent"


@every_pod
def test_no_shell_stands_between_the_kubelet_and_the_command(pod):
    for container in containers(pod):
        assert container["command"][0] in {"python", "sleep"}
        assert "-c" not in container["command"]


@every_pod
def test_what_has_nothing_to_save_is_gone_soon_after_it_is_told_to_end(pod):
    if pod["metadata"]["labels"][INSTANCE] not in {"canopy-train", "canopy-tune"}:
        assert 1 <= pod["spec"]["terminationGracePeriodSeconds"] <= 10


def test_the_pod_for_copying_ends_after_the_four_hours_that_its_header_names():
    pod = objects(K8S / "archive-pod.yaml")[-1]
    assert pod["spec"]["containers"][0]["command"] == ["sleep", str(4 * 3600)]
    assert pod["spec"]["activeDeadlineSeconds"] == 4 * 3600
    assert pod["spec"]["restartPolicy"] == "Never"


@every_pod
def test_its_ending_says_why(pod):
    for container in containers(pod):
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
        if container["command"][2:] and container["command"][2].startswith(("trainer.", "beam_jobs.")):
            assert {"name": "CANOPY_TERMINATION_LOG", "value": "/dev/termination-log"} in container["env"]
