"""Who may reach whom: the NetworkPolicies, evaluated as a cluster that enforces them does."""

import ipaddress

import pytest

from tests.k8s.manifests import FILES, OVERLAYS, STAGES, every, file_of, of_kind, pods, rendered

STRANGER: dict[str, str] = {}
INTERNET, NAME_SERVER = "203.0.113.7", "10.96.0.10"
METADATA = {"169.254.169.254": (80, 8080), "169.254.169.252": (987, 988)}  # with Dataplane V2, without
GKE = next(path for path in OVERLAYS if path.name == "gke")


def selects(selector, labels):
    assert selector.keys() <= {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= labels.items()


def fits(peer, other):
    """Whether a peer of a rule is the other side: an address, or the labels of a pod of this namespace."""
    if "ipBlock" in peer:
        assert peer["ipBlock"].keys() == {"cidr"}
        block = ipaddress.ip_network(peer["ipBlock"]["cidr"])
        return isinstance(other, str) and ipaddress.ip_address(other) in block
    assert peer.keys() == {"podSelector"}
    return isinstance(other, dict) and selects(peer["podSelector"], other)


def allowed(found, pod, direction, other, port, protocol="TCP"):
    """Whether the policies let a pod's connection through, as it is seen from that pod."""
    own = [p["spec"] for p in of_kind(found, "NetworkPolicy") if selects(p["spec"]["podSelector"], pod)]
    own = [spec for spec in own if direction in spec["policyTypes"]]
    side = {"Ingress": "from", "Egress": "to"}[direction]
    if not own:
        return True  # a pod that no policy selects is open
    return any(
        ("ports" not in rule or {"protocol": protocol, "port": port} in rule["ports"])
        and (side not in rule or any(fits(peer, other) for peer in rule[side]))
        for spec in own
        for rule in spec.get(direction.lower(), [])
    )


def labels_of(found):
    ((_, pod),) = pods(found)
    return pod["metadata"]["labels"]


@pytest.fixture(scope="module")
def everything():
    return [each for path in FILES for each in every(path)]


@pytest.mark.parametrize("port", [2222, 45678])
def test_workers_of_one_run_reach_each_other_on_every_port(everything, port):
    worker = labels_of(every(file_of("train")))
    assert allowed(everything, worker, "Egress", worker, port)
    assert allowed(everything, worker, "Ingress", worker, port)


@pytest.mark.parametrize("stage", ["preprocess", "predict", "evaluate", "tune", "tensorboard"])
@pytest.mark.parametrize("port", [22, 443, 2222, 6006])
def test_nobody_else_reaches_a_worker_nor_a_worker_anybody_else(everything, stage, port):
    worker, other = labels_of(every(file_of("train"))), labels_of(every(file_of(stage)))
    second_run = worker | {"app.kubernetes.io/instance": "canopy-train-b"}
    for peer in (other, second_run, STRANGER, INTERNET):
        assert not allowed(everything, worker, "Ingress", peer, port)
        assert not allowed(everything, worker, "Egress", peer, port)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
def test_every_stage_can_ask_a_name_server_wherever_it_runs(everything, stage, protocol):
    pod = labels_of(every(file_of(stage)))
    for server in (NAME_SERVER, "169.254.20.10", {"k8s-app": "kube-dns"}):
        assert allowed(everything, pod, "Egress", server, 53, protocol)


@pytest.mark.parametrize("stage", ["preprocess", "predict", "evaluate", "tune"])
def test_pods_that_work_alone_reach_nobody_and_nobody_reaches_them(everything, stage):
    pod = labels_of(every(file_of(stage)))
    for peer in (pod, STRANGER, INTERNET, *METADATA):
        for port in (80, 443, 988, 2222):
            assert not allowed(everything, pod, "Egress", peer, port)
            assert not allowed(everything, pod, "Ingress", peer, port)


def test_tensorboard_lets_in_only_who_carries_its_label(everything):
    pod = labels_of(every(file_of("tensorboard")))
    guest = {"canopy-tensorboard-client": "true"}
    assert allowed(everything, pod, "Ingress", guest, 6006)
    assert not allowed(everything, pod, "Ingress", guest, 22)
    for peer in (STRANGER, INTERNET, pod, labels_of(every(file_of("train")))):
        assert not allowed(everything, pod, "Ingress", peer, 6006)
    assert not allowed(everything, pod, "Egress", INTERNET, 443)


def test_the_pod_that_holds_the_claim_speaks_to_nobody(everything):
    pod = labels_of(every(next(path for path in FILES if path.name == "archive-pod.yaml")))
    for direction in ("Egress", "Ingress"):
        for port in (53, 443):
            assert not allowed(everything, pod, direction, INTERNET, port)


@pytest.mark.parametrize("stage", STAGES)
def test_on_gke_every_stage_reaches_googles_apis_and_the_metadata_server_and_nothing_more(stage):
    found, pod = rendered(GKE), labels_of(every(file_of(stage)))
    assert allowed(found, pod, "Egress", INTERNET, 443)
    for address, ports in METADATA.items():
        assert all(allowed(found, pod, "Egress", address, port) for port in ports)
    for neighbour in (INTERNET, "169.254.169.253"):
        for port in (22, 80, 988, 8080):
            assert not allowed(found, pod, "Egress", neighbour, port)
    assert not allowed(found, pod, "Ingress", INTERNET, 2222)
