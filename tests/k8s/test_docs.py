"""What docs/ says of Kubernetes: every setting, object, manifest and kubectl flag that it shows exists."""

import re
import socket
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml

from tests.conftest import ROOT
from tests.docs import test_documents
from tests.docs.test_documents import lines
from tests.k8s.manifests import FILES, INSTANCE, OVERLAYS, STAGES, file_of, kubectl, objects, of_kind

TEXTS = {
    name.removeprefix("docs/"): text
    for name, text in test_documents.TEXTS.items()
    if name.startswith("docs/")
}
EVERYTHING = "\n".join(TEXTS.values()) + "".join(path.read_text() for path in FILES)


def test_every_manifest_overlay_and_setting_is_spoken_of_by_its_name():
    text = TEXTS["kubernetes.md"]
    for path in FILES:
        assert path.name in text or path.name == "rbac.yaml", path.name
    for overlay in OVERLAYS:
        assert f"infra/overlays/{overlay.name}" in text
    settings = {key for path in FILES for each in of_kind(objects(path), "ConfigMap") for key in each["data"]}
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)*)[:` ]", text)) - {"READY"}
    assert named <= settings, named - settings


def test_the_objects_that_commands_name_are_there():
    have = {f"{each['kind'].lower()}/{each['metadata']['name']}" for path in FILES for each in objects(path)}
    named = re.findall(r"\b(job|pod|deployment|service)/(canopy-[a-z]+)", EVERYTHING)
    assert named
    for kind, name in named:
        assert f"{kind}/{name}" in have
    instances = set(re.findall(r"app.kubernetes.io/instance=(canopy-[a-z]+)", EVERYTHING))
    assert instances <= {f"canopy-{stage}" for stage in STAGES}


def kubectl_flags(verb):
    text = subprocess.run([kubectl(), verb, "--help"], capture_output=True, text=True, check=False).stdout
    options = subprocess.run([kubectl(), "options"], capture_output=True, text=True, check=False).stdout
    return set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", text + options))


def test_kubectl_has_each_command_and_flag_shown():
    shown = re.findall(r"kubectl ((?:[a-z-]+)[^\n`|;&()]*)", EVERYTHING)
    seen = set()
    for line in shown:
        verb = line.split()[0]
        if verb in {"config", "create", "taint", "auth", "rollout"}:
            continue  # their flags stand in the help of what follows
        flags = {word.split("=")[0] for word in line.split(" -- ")[0].split() if re.match(r"--?[a-z]", word)}
        assert flags <= kubectl_flags(verb) | {"-i"}, f"kubectl {line}"
        seen.add(verb)
    assert {"apply", "delete", "logs", "wait", "get", "exec", "cp", "port-forward", "describe"} <= seen


def test_every_stage_that_leads_to_a_result_is_run_and_its_result_fetched():
    text = TEXTS["kubernetes.md"]
    (loop,) = re.findall(r"for stage in ([a-z ]+); do", text)
    stages = loop.split()
    assert stages[:2] == ["preprocess", "train"], "each reads what the one before wrote"
    assert set(stages) == set(STAGES) - {"tune", "tensorboard"}
    commands = re.findall(r"python -m infra.submit ([^\n]*?)(?: --overlay (\S+))? --follow", text)
    assert len(commands) == 3
    for submitted, overlay in commands:
        assert submitted.split() == [f"k8s/{file_of(stage).name}" for stage in stages]
        assert (ROOT / overlay / "kustomization.yaml").is_file()
    for stage in stages[2:]:
        output = of_kind(objects(file_of(stage)), "ConfigMap")[0]["data"]["OUTPUT"]
        copied = f"kubectl cp canopy-archive:{output} "
        assert text.count(copied) == 2
        assert copied in file_of(stage).read_text()
        assert output.replace("/data/", "gs://BUCKET/") in text


def test_no_command_shown_waits_for_a_success_alone():
    assert "kubectl wait --for=condition=complete --timeout" not in EVERYTHING


def run_loop(tmp_path, *conditions):
    """What the loop over the stages applies where kubectl tells of these conditions, one an answer."""
    (loop,) = re.findall(
        r"^    for stage in .*?break; done$", TEXTS["kubernetes.md"], re.MULTILINE | re.DOTALL
    )
    for number, text in enumerate(conditions):
        (tmp_path / f"answer{number}").write_text(text)
    stub = tmp_path / "kubectl"
    stub.write_text(
        """#!/bin/sh
        cd "${0%/*}"
        if [ "$1" = apply ]; then echo "$5" >> applied; exit; fi
        n=$(cat asked 2>/dev/null || echo 0); echo $((n + 1)) > asked; cat answer$n
        """
    )
    stub.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    script = loop.replace("sleep 10", "sleep 0")
    subprocess.run(["sh", "-c", script], env=environment, check=True, timeout=20, capture_output=True)
    return (tmp_path / "applied").read_text().split()


def test_the_loop_shown_goes_on_after_a_success_and_stops_at_a_failure(tmp_path):
    done = ["", "SuccessCriteriaMet Complete", "", "Suspended", "FailureTarget", "FailureTarget Failed"]
    instances = run_loop(tmp_path, *done)
    assert instances == [f"{INSTANCE}=canopy-{stage}" for stage in ("preprocess", "train")]


def test_it_is_told_for_how_long_a_job_that_is_done_is_known():
    told = re.search(r"for as long as the cluster keeps it: three days", TEXTS["kubernetes.md"])
    assert told
    jobs = [job for path in FILES for job in of_kind(objects(path), "Job")]
    assert {job["spec"]["ttlSecondsAfterFinished"] for job in jobs} == {3 * 86400}


def blocks(name, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXTS[name], re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def flink():
    """Every object of the Flink cluster shown."""
    (text,) = blocks("distributed-beam.md", "yaml")
    return list(yaml.safe_load_all(text))


def flinks_pods(flink):
    """Name, labels and pod of each that the cluster makes; the operator completes those of Flink itself."""
    (cluster,) = of_kind(flink, "FlinkDeployment")
    for component in ("jobManager", "taskManager"):
        labels = {"app": cluster["metadata"]["name"], "component": component.lower()}
        yield component, labels, cluster["spec"][component]["podTemplate"]
    (jobs,) = of_kind(flink, "Deployment")
    yield "jobs", jobs["spec"]["template"]["metadata"]["labels"], jobs["spec"]["template"]


def test_the_flink_cluster_shown_is_well_formed_and_its_commands_reach_it(flink):
    for each in flink:
        if each["kind"] != "FlinkDeployment":
            kubernetes_validate.validate(each, "1.30", strict=True)
    for name, _, pod in flinks_pods(flink):
        if name != "jobs":
            kubernetes_validate.validate(pod | {"apiVersion": "v1", "kind": "Pod"}, "1.30", strict=True)
    (worker,) = (
        c for _, _, pod in flinks_pods(flink) for c in pod["spec"]["containers"] if c["name"] == "canopy"
    )
    assert worker["command"][:2] == ["python", "-m"]
    (service,) = of_kind(flink, "Service")
    ports = {str(port["port"]) for port in service["spec"]["ports"]}
    for line in lines(TEXTS["distributed-beam.md"]):
        if "PortableRunner" in line:
            assert all(f"canopy-flink-jobs:{port}" in line for port in ports)
            assert "localhost:" + worker["command"][-1].split("=")[1] in line


def test_flinks_container_waits_for_the_worker_pool_beside_it(flink):
    """kubelet starts containers in order, the next when the hook is done; Flink puts its own last."""
    (worker,) = (
        c for _, _, pod in flinks_pods(flink) for c in pod["spec"]["containers"] if c["name"] == "canopy"
    )
    python, *arguments = worker["lifecycle"]["postStart"]["exec"]["command"]
    assert python == worker["command"][0]
    with socket.socket() as pool:
        pool.bind(("localhost", 0))
        port = worker["command"][-1].split("=")[1]
        assert port in arguments[-1]
        arguments[-1] = arguments[-1].replace(port, str(pool.getsockname()[1]))
        hook = subprocess.Popen([sys.executable, *arguments])
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                hook.wait(1)
            pool.listen()
            assert hook.wait(10) == 0
        finally:
            hook.kill()
            hook.wait()


def test_every_pod_of_the_flink_cluster_shown_meets_the_restricted_standard_and_is_bounded(flink):
    (cluster,) = of_kind(flink, "FlinkDeployment")
    for name, _, pod in flinks_pods(flink):
        for container in pod["spec"]["containers"]:
            context = pod["spec"]["securityContext"] | container["securityContext"]
            assert context["runAsNonRoot"] is True
            assert context["runAsUser"] > 0
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            if container["name"] == "flink-main-container":
                assert cluster["spec"][name]["resource"].keys() == {"cpu", "memory", "ephemeralStorage"}
            else:
                for kind in ("requests", "limits"):
                    assert container["resources"][kind].keys() == {"cpu", "memory", "ephemeral-storage"}


def test_nobody_reaches_a_pod_of_the_flink_cluster_shown_but_by_a_port_that_is_named(flink):
    policies = [policy["spec"] for policy in of_kind(flink, "NetworkPolicy")]
    for name, labels, _ in flinks_pods(flink):
        own = [each for each in policies if each["podSelector"]["matchLabels"].items() <= labels.items()]
        assert {"Ingress", "Egress"} <= {kind for each in own for kind in each["policyTypes"]}, name
    admitted = {
        port["port"]
        for each in policies
        for rule in each.get("ingress", [])
        for port in rule["ports"]
        if rule["from"]
    }
    assert 50000 not in admitted, "the worker pool has no authentication"
    (cluster,) = of_kind(flink, "FlinkDeployment")
    data = int(cluster["spec"]["flinkConfiguration"]["taskmanager.data.port"])
    assert admitted == {data, 6122, 6123, 6124, 8081, 8098, 8099}


def test_the_policies_shown_name_each_port_since_plugins_pass_over_ranges(flink):
    for policy in of_kind(flink, "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []) + policy["spec"].get("egress", []):
            assert all("endPort" not in port for port in rule["ports"])


def test_the_archive_pod_may_run_the_commands_shown(flink):
    (archive,) = (pod for path in FILES for pod in of_kind(objects(path), "Pod"))
    labels = archive["metadata"]["labels"].items()
    policies = [policy["spec"] for policy in of_kind(flink, "NetworkPolicy")]
    (own,) = (each for each in policies if each["podSelector"]["matchLabels"].items() <= labels)
    (service,) = of_kind(flink, "Service")
    (jobs,) = (each for each in policies if each["podSelector"]["matchLabels"] == service["spec"]["selector"])
    assert own["egress"][1]["to"] == [{"podSelector": jobs["podSelector"]}]
    assert jobs["ingress"][0]["from"][0]["podSelector"]["matchLabels"].items() <= labels
    ports = {port["port"] for port in service["spec"]["ports"]}
    assert {port["port"] for port in own["egress"][1]["ports"]} == ports
    assert {port["port"] for port in jobs["ingress"][0]["ports"]} == ports
    assert f"kubectl exec -i -t {archive['metadata']['name']} --" in TEXTS["distributed-beam.md"]


def test_the_image_for_dataflow_has_what_beams_boot_program_starts():
    (text,) = blocks("distributed-beam.md", "dockerfile")
    ours = (ROOT / "infra" / "Dockerfile").read_text()
    venv = re.search(r"ENV PATH=(\S+?)/bin:", ours)
    assert venv
    assert re.search(rf"pip --python {venv[1]}/bin/python .*install pip==[\d.]+$", text, re.MULTILINE)
    (python,) = set(re.findall(r"ARG BASE=\S*/python:(\d+\.\d+)\.", ours))
    assert re.findall(r"beam_python([\d.]+)_sdk", text) == [python], "code pickled by another does not load"
    assert f"Python {python}, which is the image's" in TEXTS["distributed-beam.md"]


def test_beams_version_is_the_locked_one():
    locked = re.search(r"^apache-beam==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked
    versions = re.findall(r"apache/beam_\w[\w.]*:(\S+)", TEXTS["distributed-beam.md"])
    assert set(versions) == {locked[1]}
