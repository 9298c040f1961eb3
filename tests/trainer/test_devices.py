"""What a run asks of its devices, and how it has them exchange gradients."""

import multiprocessing
import os
import socket

import pytest
import tensorflow as tf

from canopy import cli, machine
from canopy.cli import UserError
from tests.conftest import SMALLEST
from trainer import cluster, config, devices


def asking(*flags):
    return config.parse([*flags, "--data", "d", "--model_dir", "m"])


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: [])


@pytest.fixture
def a_gpu(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["a GPU"])


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("flags", [("--require_gpu",), ("--communication", "nccl")])
def test_a_run_that_asks_for_gpus_is_refused_without_one(flags):
    with pytest.raises(UserError, match=f"^{flags[0]} .*TensorFlow sees no"):
        devices.check(asking(*flags))


@pytest.mark.usefixtures("no_gpu")
def test_a_gpu_that_is_there_and_not_seen_points_to_the_libraries(monkeypatch):
    for count in (0, 1):
        monkeypatch.setattr(machine, "gpus", lambda count=count: count)
        with pytest.raises(UserError) as raised:
            devices.check(asking("--require_gpu"))
        assert ("libnvidia-ml.so.1" in str(raised.value)) is bool(count)


@pytest.mark.usefixtures("no_gpu")
def test_a_gpu_that_is_gone_after_training_is_worth_another_try(monkeypatch):
    monkeypatch.setenv("CANOPY_HAS_TRAINED", "true")
    with pytest.raises(cli.TryAgainError, match="TensorFlow sees no GPU any more"):
        devices.check(asking("--require_gpu"))


@pytest.mark.usefixtures("no_gpu")
def test_a_run_that_asks_for_nothing_takes_the_cpu():
    devices.check(asking())


@pytest.mark.usefixtures("a_gpu")
def test_a_gpu_satisfies_both():
    devices.check(asking("--require_gpu", "--communication", "nccl"))


def hint_of(communication, place, found):
    """Exchanges with the other worker and tells what TensorFlow was told to do it by."""
    os.environ["TF_CONFIG"] = place.tf_config()
    strategy = devices.strategy(communication)

    def step():
        replica = tf.distribute.get_replica_context()
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, [tf.ones([2]), tf.ones([3])])

    exchange = tf.function(lambda: strategy.run(step))
    sums = [each.numpy().tolist() for each in exchange()]
    operations = exchange.get_concrete_function().graph.get_operations()
    hints = {op.get_attr("communication_hint") for op in operations if op.type.startswith("CollectiveReduce")}
    found.put((sums, hints))


@pytest.mark.parametrize("communication", ["ring", "nccl"])
def test_workers_exchange_by_what_was_asked_for_if_they_can_and_by_no_proxy(communication, monkeypatch):
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    spawn = multiprocessing.get_context("spawn")
    addresses = tuple(f"127.0.0.1:{port}" for port in cluster.free_ports(2))
    found = spawn.Queue()
    places = [cluster.Place(index, addresses) for index in range(2)]
    workers = [
        spawn.Process(target=hint_of, args=(communication, place, found), daemon=True) for place in places
    ]
    for worker in workers:
        worker.start()
    for _ in workers:
        assert found.get(timeout=120) == ([[2.0] * 2, [2.0] * 3], {communication.encode()})
    for worker in workers:
        worker.join(60)


def test_a_port_that_another_program_takes_as_training_starts_is_worth_another_try(
    records, tmp_path, command, monkeypatch
):
    with socket.create_server(("127.0.0.1", 0)) as rival:
        addresses = (f"127.0.0.1:{rival.getsockname()[1]}", "127.0.0.1:9")
        monkeypatch.setenv("TF_CONFIG", cluster.Place(0, addresses).tf_config())
        done = command("trainer.task", "--data", records, "--model_dir", tmp_path / "model", *SMALLEST)
    assert done.returncode == cli.EXIT_PEER_LOST, done.stderr
    assert "out of reach for now: another program has taken this worker's port" in done.stderr
    assert "Traceback" not in done.stderr
