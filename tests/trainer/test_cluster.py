"""Who the workers are, from an Indexed Job's environment or on one machine."""

import json

import pytest

from canopy.cli import UserError
from trainer import cluster

POD = {
    "JOB_COMPLETION_INDEX": "1",
    "HOSTNAME": "canopy-train-1",
    "CANOPY_WORKERS": "2",
    "CANOPY_SERVICE": "canopy-workers",
}


def test_a_pod_finds_its_peers_behind_the_headless_service():
    place = cluster.from_indexed_job(POD)
    assert json.loads(place.tf_config()) == {
        "cluster": {"worker": ["canopy-train-0.canopy-workers:2222", "canopy-train-1.canopy-workers:2222"]},
        "task": {"type": "worker", "index": 1},
    }
    assert not place.is_chief
    assert place.by_name


def test_a_pod_knows_its_run_where_the_job_says_which():
    assert cluster.from_indexed_job({**POD, "CANOPY_RUN_ID": "uid"}).run == "uid"
    assert cluster.from_indexed_job(POD).run == ""


@pytest.mark.parametrize("address", ["canopy-train-0.canopy-train:2222", "10.0.0.7:2222", "[fd00::7]:2222"])
def test_an_address_is_a_host_and_a_port_whatever_its_family(address):
    host, port = cluster.split(address)
    assert (port, "[" in host, cluster.join(host, port)) == (2222, False, address)


@pytest.mark.parametrize("port", ["1", "65535"])
def test_the_port_can_be_set(port):
    assert cluster.from_indexed_job({**POD, "CANOPY_PORT": port}).addresses[0].endswith(f":{port}")


@pytest.mark.parametrize("name", ["JOB_COMPLETION_INDEX", "CANOPY_WORKERS", "CANOPY_SERVICE", "HOSTNAME"])
def test_a_missing_variable_is_named(name):
    with pytest.raises(UserError, match=name):
        cluster.from_indexed_job({key: value for key, value in POD.items() if key != name})


def test_an_index_beyond_the_workers_is_refused():
    with pytest.raises(UserError, match="completions"):
        cluster.from_indexed_job({**POD, "JOB_COMPLETION_INDEX": "2"})


@pytest.mark.parametrize("port", ["0", "65536", "-1"])
def test_a_port_has_to_be_one(port):
    with pytest.raises(UserError, match="CANOPY_PORT must be a number from 1 to 65535"):
        cluster.from_indexed_job({**POD, "CANOPY_PORT": port})


def test_numbers_have_to_be_numbers():
    with pytest.raises(UserError, match="numbers"):
        cluster.from_indexed_job({**POD, "CANOPY_WORKERS": "two"})


def test_tf_config_comes_back_as_it_went():
    for place in cluster.on_this_machine(3):
        assert cluster.from_tf_config({"TF_CONFIG": place.tf_config()}) == place


def test_without_tf_config_there_is_one_worker():
    place = cluster.from_tf_config({})
    assert (place.workers, place.is_chief) == (1, True)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"cluster": {"worker": ["a:1"]}, "task": {"index": 1}}'])
def test_a_damaged_tf_config_is_refused(text):
    with pytest.raises(UserError, match="TF_CONFIG"):
        cluster.from_tf_config({"TF_CONFIG": text})


def test_local_workers_get_ports_of_their_own():
    addresses = cluster.on_this_machine(5)[0].addresses
    assert len(set(addresses)) == 5


def test_addresses_can_be_given_in_place_of_a_service():
    for index in (0, 1):
        given = {"JOB_COMPLETION_INDEX": str(index), "CANOPY_ADDRESSES": "a:1, b:65535"}
        place = cluster.from_indexed_job(given)
        assert (place.index, place.addresses, place.by_name) == (index, ("a:1", "b:65535"), False)


@pytest.mark.parametrize(
    ("index", "text", "named"),
    [("2", "a:1,b:2", "completions"), ("0", "a,b:2", "a,b"), ("0", "a:0", "a:0"), ("0", "a:65536", "65536")],
)
def test_addresses_that_do_not_fit_are_refused(index, text, named):
    with pytest.raises(UserError, match=named):
        cluster.from_indexed_job({"JOB_COMPLETION_INDEX": index, "CANOPY_ADDRESSES": text})


def test_a_single_worker_needs_no_cluster():
    place = cluster.from_indexed_job({**POD, "CANOPY_WORKERS": "1", "JOB_COMPLETION_INDEX": "0"})
    assert (place.workers, place.tf_config()) == (1, "")
