"""TensorBoard's Deployment: one pod that reads, and answers where its Service sends whoever asks."""

import subprocess
import sys
import urllib.request

import pytest

from tests.conftest import has_ipv6
from tests.infra.playing import wait_for
from tests.k8s.manifests import file_of, objects, of_kind, template, the
from trainer.cluster import free_ports

NAME = "canopy-tensorboard"


@pytest.fixture
def deployment():
    return the(objects(file_of("tensorboard")), "Deployment", NAME)


@pytest.fixture
def container(deployment):
    (one,) = template(deployment)["spec"]["containers"]
    return one


def test_one_port_leads_from_the_service_to_what_listens(deployment, container):
    service = the(objects(file_of("tensorboard")), "Service", NAME)["spec"]
    labels = template(deployment)["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (asked,), (opened,) = service["ports"], container["ports"]
    assert asked["targetPort"] == opened["name"]
    assert asked["port"] == opened["containerPort"], "the one that the header's command names"
    assert f"--port={opened['containerPort']}" in container["args"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/", "port": opened["name"]}


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_it_answers_at_addresses_of_either_kind(container, tmp_path):
    port = free_ports(1)[0]
    given = {"--logdir=$(LOGDIR)": f"--logdir={tmp_path}", "--port=6006": f"--port={port}"}
    arguments = [given.get(argument, argument) for argument in container["args"]]
    command = [sys.executable, *container["command"][1:], *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            wait_for(lambda: status(f"http://127.0.0.1:{port}/") == 200)
            assert status(f"http://[::1]:{port}/") == 200
        finally:
            running.terminate()


def status(address):
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.status
    except OSError:
        return None


def test_a_slow_start_and_slow_answers_are_no_reason_to_end_it_or_to_send_nobody_there(container):
    start, ready, live = (container[f"{name}Probe"] for name in ("startup", "readiness", "liveness"))
    for probe in (start, live):
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 120
    for probe in (ready, live):
        assert probe["timeoutSeconds"] >= 5


def test_the_header_names_the_port_and_the_label_that_lets_a_pod_in():
    (policy,) = of_kind(objects(file_of("tensorboard")), "NetworkPolicy")
    (rule,) = policy["spec"]["ingress"]
    ((label, value),) = rule["from"][0]["podSelector"]["matchLabels"].items()
    text = file_of("tensorboard").read_text()
    assert f'# {label}: "{value}"' in text
    port = rule["ports"][0]["port"]
    assert f"kubectl port-forward service/{NAME} {port}, then http://localhost:{port}" in text


def test_one_pod_at_a_time_is_on_the_one_node_that_may_mount_the_claim(deployment):
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_what_training_has_written_is_only_read(container):
    assert {"name": "data", "mountPath": "/data", "readOnly": True} in container["volumeMounts"]
