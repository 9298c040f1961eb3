"""What S3 refuses, with a client that answers as the test says."""

from __future__ import annotations

import os
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
from botocore import exceptions

from beam_jobs.stores import s3
from beam_jobs.stores.objects import UnavailableError
from canopy.cli import UserError


def answering(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    """Every request gets this answer, or raises it."""

    def request(**_: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    client = SimpleNamespace(get_object=request, head_object=request, delete_object=request)
    monkeypatch.setattr(s3, "_client", lambda _: client)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("404", FileNotFoundError), ("NoSuchKey", FileNotFoundError), ("NoSuchBucket", FileNotFoundError),
        ("NotFound", FileNotFoundError), ("401", PermissionError), ("403", PermissionError),
        ("AccessDenied", PermissionError),
        ("InvalidAccessKeyId", PermissionError), ("SignatureDoesNotMatch", PermissionError),
        ("ExpiredToken", PermissionError), ("SlowDown", UnavailableError), ("500", UnavailableError),
    ],
)  # fmt: skip
def test_what_the_store_refuses_is_what_a_disk_would_raise(
    code: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, exceptions.ClientError({"Error": {"Code": code}}, "any"))
    for doing in (s3.read, s3.open_read, s3.delete):
        with pytest.raises(kind, match="s3://here/a"):
            doing("s3://here/a")
    if kind is not FileNotFoundError:
        with pytest.raises(kind, match="s3://here/a"):
            s3.exists("s3://here/a")


def test_without_boto3_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(UserError) as told:
        s3._client.__wrapped__(0)
    # Canopy is on no package index: what has its name there is somebody else's.
    wanted = f"s3:// needs boto3: install it with {sys.executable} -m pip install boto3"
    assert str(told.value) == wanted


def test_each_process_has_a_client_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_client", lambda process: process)
    with s3._errors("s3://here") as client:
        assert client == os.getpid()


@pytest.mark.parametrize(
    "cut",
    [
        exceptions.ResponseStreamingError(error="cut"),
        exceptions.ReadTimeoutError(endpoint_url="here"),
        exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    ],
    ids=lambda cut: type(cut).__name__,
)
def test_however_a_body_is_cut_the_pauses_before_another_try_grow_to_20_seconds(
    cut: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read() -> bytes:
        raise cut

    answering(monkeypatch, {"Body": SimpleNamespace(read=read)})
    monkeypatch.setattr("random.random", lambda: 1.0)
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(UnavailableError, match="s3://here/a"):
        s3.read("s3://here/a")
    assert pauses == [0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20.0, 20.0, 20.0]
