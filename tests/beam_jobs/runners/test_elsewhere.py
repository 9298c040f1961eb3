"""Runners elsewhere: what cannot come to anything is one sentence, with nothing written yet."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from beam_jobs.runners import choosing, elsewhere
from canopy.cli import UserError
from tests.beam_jobs.gcs_server import Faulty
from tests.beam_jobs.making import Archive, Run


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("", ""),
        ("direct", "DirectRunner"),
        ("dataflowrunner", "DataflowRunner"),
        ("FlinkRunner", "FlinkRunner"),
        ("a.module.Runner", "a.module.Runner"),
    ],
)
def test_a_runners_name_is_taken_as_beam_takes_it(given: str, found: str) -> None:
    assert elsewhere.spelled(given) == found


def test_the_direct_runner_by_another_spelling_is_still_the_one_that_fits() -> None:
    options = choosing.parse_options(["--runner=direct"])
    choice = choosing.choose(
        options, ["--runner=direct"], images=1, remote=False, processes_from=10, pieces=1, each=1
    )
    assert (choice.runner, choice.mode) == ("FnApiRunner", "in_memory")


def test_dataflow_is_not_sent_to_look_for_paths_of_this_machine(archive: Archive, run: Run) -> None:
    done = run(
        archive.fill(2), "--runner=DataflowRunner", "--project=p", "--region=r", "--temp_location=gs://b/t"
    )
    assert done.code == 2
    assert "Dataflow's workers cannot reach it" in done.err
    assert not done.folder.exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--runner=Fink"], "--runner Fink: Beam knows DataflowRunner"),
        (["--runner=interactive"], "--runner InteractiveRunner is for notebooks"),
        (["--runner=no.such.Runner"], "--runner no.such.Runner: No module named"),
        (["--runner=PortableRunner"], "needs --job_endpoint HOST:PORT"),
        (["--runner=flink", "--job_endpoint=here"], "--job_endpoint must be HOST:PORT, and is 'here'"),
        (
            ["--runner=flink", "--job_endpoint=localhost:1", "--job_server_timeout=0"],
            "--job_endpoint localhost:1: no job server answers there",
        ),
    ],
)
def test_a_runner_that_cannot_be_used_is_said_before_anything_is_written(
    archive: Archive, run: Run, flags: list[str], said: str
) -> None:
    done = run(archive.fill(2), *flags)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") <= 2, "a sentence, and that it was waited for"
    assert not done.folder.exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["--runner=DataflowRunner", "--num_shard", "3"],
        ["--runner=BundleBasedDirectRunner", "--num_shard", "3"],
        ["--runner=FlinkRunner", "second.jpg", "third.jpg"],
    ],
)
def test_what_nobody_knows_is_refused_on_runners_elsewhere_too(
    archive: Archive, run: Run, flags: list[str]
) -> None:
    done = run(archive.fill(2), *flags)
    assert done.code == 2
    assert f"unknown flag or value: {' '.join(flags[1:])}" in done.err
    assert not done.folder.exists()


def test_what_only_a_job_server_may_know_is_left_to_it_and_told(archive: Archive, run: Run) -> None:
    done = run(archive.fill(2), "--runner=flink", "--object_reuse=true", "--job_endpoint=here")
    assert done.err.splitlines()[:-1] == ["unknown flag or value: --object_reuse=true; left to FlinkRunner"]


@pytest.mark.parametrize("flag", ["staging_location", "temp_location"])
@pytest.mark.parametrize(
    ("place", "denied", "said"),
    [
        ("gs://heer/x", "", "there is no bucket of gs://heer/x"),
        ("gs://here/x", "/b/here", "the bucket of gs://here/x is denied; Beam needs storage.buckets.get"),
    ],
)
def test_a_bucket_that_dataflow_cannot_use_is_said_before_anything_is_read(
    server: Faulty, flag: str, place: str, denied: str, said: str
) -> None:
    server.denied = denied
    options = choosing.parse_options(
        ["--runner=DataflowRunner", "--project=p", "--dataflow_endpoint=http://localhost:1",
         "--temp_location=gs://here/t", f"--{flag}={place}"]
    )  # fmt: skip
    with pytest.raises(UserError, match=f"--{flag}: {said}"):
        choosing.check(options, images=["gs://here/i"])


def test_options_that_beam_refuses_are_told_in_its_words() -> None:
    options = choosing.parse_options(["--runner=DataflowRunner", "--temp_location=gs://b/t", "--region=r"])
    with pytest.raises(UserError, match=r"--runner DataflowRunner: .*project"):
        choosing.check(options, images=["gs://b/i"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--environment_type=EXTERNAL"], "Beam's options: Option external_service_address is required"),
        (["--pickle_library=dill"], "Beam's options: Pipeline option pickle_library=dill is set, but"),
        (["--runner=direct", "--environment_type=EXTERNAL"], "--runner DirectRunner: Option external"),
    ],
)
def test_options_that_beam_refuses_on_this_machine_are_told_before_anything_is_written(
    archive: Archive, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], said: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    done = run(archive.fill(2), *flags)
    assert done.code == 2
    assert said in done.err
    assert not done.folder.exists()
    assert run(archive, "--direct_num_workers=1").code == 0
    assert not list(tmp_path.glob("beam-*"))


@pytest.mark.parametrize("endpoint", ["here", "here:", "here:port", ":80"])
def test_a_job_servers_address_is_a_host_and_a_port(endpoint: str) -> None:
    options = choosing.parse_options(["--runner=PortableRunner", f"--job_endpoint={endpoint}"])
    with pytest.raises(UserError, match=f"must be HOST:PORT, and is '{endpoint}'"):
        choosing.check(options)


def test_where_a_job_server_takes_files_is_looked_for_too_before_anything_is_written(
    archive: Archive, run: Run
) -> None:
    with socket.create_server(("localhost", 0)) as server:
        done = run(
            archive.fill(2), "--runner=PortableRunner", f"--job_endpoint=localhost:{server.getsockname()[1]}",
            "--artifact_endpoint=localhost:1", "--job_server_timeout=0",
        )  # fmt: skip
    assert done.code == 2, done.err
    assert "--artifact_endpoint localhost:1: no job server answers there" in done.err
    assert not done.folder.exists()


def test_a_job_server_within_the_process_is_not_waited_for() -> None:
    choosing.check(choosing.parse_options(["--runner=PortableRunner", "--job_endpoint=embed"]))


def test_a_job_server_may_come_up_a_little_later() -> None:
    with socket.socket() as server:
        server.bind(("localhost", 0))
        endpoint = f"localhost:{server.getsockname()[1]}"
        starting = threading.Timer(1.5, server.listen)
        starting.start()
        options = choosing.parse_options(["--runner=PortableRunner", f"--job_endpoint={endpoint}"])
        began = time.monotonic()
        choosing.check(options)
        assert time.monotonic() - began > 1
        starting.join()


def test_only_runners_that_may_work_are_offered() -> None:
    with pytest.raises(UserError) as refused:
        elsewhere.spelled("Fink")
    assert "DirectRunner, " in str(refused.value)
    for name in ("InteractiveRunner", "KafkaStreamsRunner", "TestDirectRunner", "TestDataflowRunner"):
        assert name not in str(refused.value)


def test_a_job_server_that_cannot_be_fetched_is_told_with_its_address(archive: Archive, run: Run) -> None:
    done = run(archive.fill(2), "--runner=FlinkRunner", "--flink_job_server_jar=http://localhost:1/jobs.jar")
    assert done.code == 2, done.err
    assert "could not fetch this runner's job server from http://localhost:1/jobs.jar" in done.err


def test_prism_is_one_sentence_where_there_is_no_network(
    archive: Archive, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://localhost:1")
    monkeypatch.setattr(
        "apache_beam.runners.portability.prism_runner.PrismJobServer.BIN_CACHE", str(tmp_path)
    )
    done = run(archive.fill(2), "--runner=PrismRunner")
    assert done.code == 2, done.err
    assert "could not fetch this runner's job server from https://github.com/apache/beam/" in done.err
    assert done.err.count("\n") == 1
