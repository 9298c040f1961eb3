"""Objects in Amazon S3, or in any store that speaks its protocol, by boto3 (the extra `aws`).

Promises: whatever is worth a second try gets it, by boto3's standard mode, and a body that is cut as well; an
upload is whole or not there; what is refused for good comes out as the exception that a local file would
raise. Credentials, region and endpoint are what boto3 finds: AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL
and so on.
Beam's own s3io opens a new client for each object, which costs more than the object.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import IO, Any

from beam_jobs.stores import objects
from beam_jobs.stores.objects import CONNECTIONS, UnavailableError
from canopy.cli import UserError

SCHEME = "s3://"
ATTEMPTS = 10  # with a backoff of at most 20 s between two: minutes
MISSING = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}
DENIED = {"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}


@functools.cache
def _client(process: int) -> Any:
    """This process' client, which its threads may share; forked ones must not share connections."""
    try:
        import boto3
        from botocore import exceptions
        from botocore.config import Config
    except ImportError as error:
        raise UserError(
            f"s3:// needs boto3: install it with {sys.executable} -m pip install boto3"
        ) from error
    settings = Config(
        retries={"mode": "standard", "max_attempts": ATTEMPTS}, max_pool_connections=CONNECTIONS
    )
    try:
        return boto3.session.Session().client("s3", config=settings)
    except (exceptions.BotoCoreError, ValueError) as error:  # of an endpoint it raises ValueError
        raise UserError(f"S3 cannot be used as it is set up: {objects.words(error)}") from error


@contextlib.contextmanager
def _errors(path: str) -> Iterator[Any]:
    """Gives the client; raises what a local file would, `UnavailableError` where repeating did not help."""
    client = _client(os.getpid())
    from botocore import exceptions

    try:
        yield client
    except exceptions.ClientError as error:
        code = _code(error)
        if code in MISSING:
            raise FileNotFoundError(f"{path} does not exist") from error
        if code in DENIED:
            raise PermissionError(f"access to {path} is denied") from error
        raise UnavailableError(f"S3 fails at {path}: {objects.words(error)}") from error
    except exceptions.NoCredentialsError as error:
        raise UserError(
            "S3 needs credentials: run `aws configure`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    except exceptions.ParamValidationError as error:  # boto3 asked nobody
        raise UserError(f"S3 has no {path}: {objects.words(error)}") from error
    except exceptions.BotoCoreError as error:
        raise UnavailableError(f"S3 fails at {path}: {objects.words(error)}") from error


def _code(error: Any) -> str:
    """What a `ClientError` is, in the store's own word."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _address(path: str) -> dict[str, str]:
    bucket, key = objects.parts(path)
    if not key:
        raise FileNotFoundError(path)
    return {"Bucket": bucket, "Key": key}


def read(path: str, start: int = 0, length: int | None = None) -> bytes:
    """An object's bytes, or `length` of them (fewer at its end) from `start`."""
    if length == 0:
        return b""
    from botocore.exceptions import ClientError

    end = "" if length is None else start + length - 1
    wanted = {"Range": f"bytes={start}-{end}"} if start or length is not None else {}
    with _errors(path) as client:
        try:
            return _whole_body(client, {**_address(path), **wanted})
        except ClientError as error:
            if _code(error) == "InvalidRange":  # it ends before `start`
                return b""
            raise


def _whole_body(client: Any, request: dict[str, str]) -> bytes:
    """What `get_object` answers, asked for anew where it is cut: boto3 repeats none that has begun."""
    from botocore import exceptions

    cut = (exceptions.ResponseStreamingError, exceptions.ReadTimeoutError, exceptions.IncompleteReadError)
    for attempt in range(1, ATTEMPTS):
        body = client.get_object(**request)["Body"]
        with contextlib.suppress(*cut):
            data: bytes = body.read()
            return data
        # By chance, or many readers that were cut together would come again together.
        time.sleep(min(0.2 * 2**attempt, 20.0) * random.random())
    last: bytes = client.get_object(**request)["Body"].read()
    return last


def open_read(path: str) -> IO[bytes]:
    """A seekable reader of a large object; a small one is better fetched by `read`."""
    return objects.reader(size(path), lambda start, length: read(path, start, length))


def size(path: str) -> int:
    """An object's bytes, by a request."""
    with _errors(path) as client:
        return int(client.head_object(**_address(path))["ContentLength"])


@contextlib.contextmanager
def open_write(path: str) -> Iterator[IO[bytes]]:
    """Collects an object in a temporary file, then uploads it, a large one in parts that appear together."""
    with tempfile.TemporaryFile() as file:
        yield file
        file.seek(0)
        address = _address(path)
        with _errors(path) as client:
            client.upload_fileobj(file, address["Bucket"], address["Key"])


def exists(path: str) -> bool:
    """Whether an object of exactly that name is there."""
    try:
        with _errors(path) as client:
            client.head_object(**_address(path))
    except FileNotFoundError:
        return False
    return True


def delete(path: str) -> None:
    """Removes an object; one that is gone is no mistake."""
    with _errors(path) as client:
        client.delete_object(**_address(path))


def match(pattern: str) -> Iterator[str]:
    """The addresses that a pattern matches: `*` and `?` within a folder, `**` across folders.

    Raises:
        FileNotFoundError: the bucket does not exist.
        ValueError: it is no pattern.
    """
    bucket, name = objects.parts(pattern)
    prefix, wanted = objects.fixed_part(name), objects.expression(name)
    with _errors(f"{SCHEME}{bucket}") as client:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            for found in page.get("Contents", ()):
                if wanted.fullmatch(found["Key"]):
                    yield f"{SCHEME}{bucket}/{found['Key']}"
