"""A job on Dataflow, followed by Beam's own client: the service's place is taken by a small server."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from beam_jobs.runners import choosing, running
from canopy.cli import TryAgainError, UserError

QUOTA = "Startup of the worker pool failed. QUOTA_EXCEEDED: Quota 'CPUS' exceeded."
WORKER_SAID = """Traceback (most recent call last):
  File "beam_jobs/storage.py", line 75, in explained
canopy.cli.UserError: cannot write gs://here/x: access is denied [while running 'Convert-ptransform-33']
"""


class Service(http.server.ThreadingHTTPServer):
    """What it answers is set by the tests: states one after another, or a status in an answer's place."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.states: list[str] = []
        self.statuses: dict[str, list[int]] = {}  # by what is asked for: one a request, the last one stays
        self.said = ""  # the job's last words
        self.asked: list[str] = []


class Connection(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _handle(self) -> None:
        service = self.server
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        last = self.path.partition("?")[0].rpartition("/")[2]
        asked = last if last in ("messages", "metrics") else {"POST": "create", "PUT": "update"}.get(
            self.command, "get"
        )  # fmt: skip
        service.asked.append(asked)
        statuses = service.statuses.get(asked) or [200]
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        document: dict[str, Any] = {"id": "job-1", "name": "job"}
        if status != 200:
            document = {"error": {"code": status, "message": "the service's words"}}
        elif asked == "messages":
            word = {"id": "1", "time": "2026-01-01T00:00:00Z", "messageImportance": "JOB_MESSAGE_ERROR"}
            document = {"jobMessages": [{**word, "messageText": service.said}] if service.said else []}
        elif asked == "get":
            states = service.states
            document["currentState"] = f"JOB_STATE_{states.pop(0) if len(states) > 1 else states[0]}"
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = _handle  # noqa: N815


@pytest.fixture
def service() -> Iterator[Service]:
    server = Service()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def job(service: Service, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What Beam gives for a job that was submitted; its pauses pass a hundred times as fast."""
    from apache_beam.runners.dataflow import dataflow_runner
    from apache_beam.runners.dataflow.internal import apiclient
    from google.cloud import dataflow

    quick = SimpleNamespace(sleep=lambda seconds: time.sleep(seconds / 100), time=time.time)
    monkeypatch.setattr(dataflow_runner, "time", quick)
    options = choosing.parse_options(
        ["--runner=DataflowRunner", "--project=p", "--region=r", "--temp_location=gs://b/t", "--no_auth",
         f"--dataflow_endpoint=http://localhost:{service.server_address[1]}"]
    )  # fmt: skip
    runner = dataflow_runner.DataflowRunner()
    runner.dataflow_client = apiclient.DataflowApplicationClient(options, "gs://b/t")
    return dataflow_runner.DataflowPipelineResult(dataflow.Job(id="job-1"), runner, options)


def follow(job: Any) -> None:
    with running.explained():
        running.wait(job, 1, "converting")


def test_a_job_is_followed_to_its_end_and_its_address_told(
    service: Service, job: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    service.states = ["PENDING", "RUNNING", "DONE"]
    follow(job)
    assert "https://console.cloud.google.com/dataflow/jobs/r/job-1?project=p" in capsys.readouterr().err


@pytest.mark.parametrize("asked", ["get", "messages"])
@pytest.mark.parametrize("status", [429, 408])
def test_a_service_that_is_too_busy_for_a_while_ends_no_job(
    service: Service, job: Any, capsys: pytest.CaptureFixture[str], asked: str, status: int
) -> None:
    service.states = ["RUNNING"] * 4 + ["DONE"]
    service.statuses[asked] = [200, status, 200]
    follow(job)
    said = capsys.readouterr().err
    assert f"is asked again: {status} the service's words" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("lost", [True, False], ids=["connection", "credentials"])
def test_a_lost_connection_ends_no_job_but_lost_credentials_do(
    service: Service, job: Any, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    from google.auth.exceptions import RefreshError

    service.states = ["RUNNING", "DONE"]
    errors = [ConnectionResetError("it is gone") if lost else RefreshError("it is gone")]
    ask = job._runner.dataflow_client.get_job

    def fail_once(*given: Any, **named: Any) -> Any:
        if errors:
            raise errors.pop()
        return ask(*given, **named)

    monkeypatch.setattr(job._runner.dataflow_client, "get_job", fail_once)
    if lost:
        follow(job)
        return
    with pytest.raises(UserError, match=r"refuses to tell .*: it is gone"):
        follow(job)


def test_a_service_that_refuses_to_tell_is_one_sentence_with_the_jobs_address(
    service: Service, job: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    service.states = ["RUNNING"]
    service.statuses["messages"] = [403]
    with pytest.raises(UserError, match=r"refuses to tell .*/job-1\?project=p\): 403 the service's words"):
        follow(job)
    assert "update" in service.asked, "nobody would make whole what it goes on to write"
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "said", "told"),
    [
        ("FAILED", QUOTA, f"the job ended on Dataflow as FAILED: {QUOTA}"),
        ("FAILED", WORKER_SAID, "cannot write gs://here/x: access is denied"),
        ("CANCELLED", "", "the job was cancelled where its runner runs it"),
        ("DRAINED", "", "the job ended on Dataflow as DRAINED"),
    ],
)
def test_a_job_that_did_not_do_its_work_is_one_sentence(
    service: Service, job: Any, state: str, said: str, told: str
) -> None:
    service.states, service.said = ["RUNNING", state], said
    with pytest.raises(UserError) as refused:
        follow(job)
    assert str(refused.value) == told


def test_a_bug_in_a_worker_stays_one(service: Service, job: Any) -> None:
    service.states, service.said = ["RUNNING", "FAILED"], "Traceback (most recent call last):\nTypeError: x"
    with pytest.raises(Exception, match="TypeError: x") as raised:
        follow(job)
    assert not isinstance(raised.value, UserError)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, UserError), (403, UserError), (404, UserError), (429, TryAgainError)]
)
def test_a_job_that_is_not_taken_is_one_sentence(
    service: Service, job: Any, caplog: pytest.LogCaptureFixture, status: int, kind: type[Exception]
) -> None:
    from google.cloud import dataflow

    service.statuses["create"] = [status]
    submitted = SimpleNamespace(proto=dataflow.Job(name="job"))
    told = f"^Dataflow does not take the job: {status} the service's words$"
    with pytest.raises(kind, match=told), running.explained():
        job._runner.dataflow_client.submit_job_description(submitted)
    assert not caplog.records


def test_a_service_that_fails_is_worth_another_try() -> None:
    from google.api_core.exceptions import GoogleAPICallError, InternalServerError, ServiceUnavailable

    for error in (InternalServerError("x"), ServiceUnavailable("x"), GoogleAPICallError("it gave no code")):
        with pytest.raises(TryAgainError, match="Dataflow does not take the job: "), running.explained():
            raise error
