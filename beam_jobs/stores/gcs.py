"""Objects in Google Cloud Storage, by google-cloud-storage itself.

Promises: whatever is worth a second try gets it (429, 5xx, a cut connection, a checksum that does not fit),
for minutes; an upload is whole or not there; what is refused for good comes out as the exception that a local
file would raise.
Beam's own gcsio opens a new client for each object and takes several requests for a small one.
"""

from __future__ import annotations

import functools
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from beam_jobs.stores import objects
from beam_jobs.stores.objects import CONNECTIONS, TRY_SECONDS, UnavailableError
from canopy.cli import UserError

SCHEME = "gs://"
NEW_POD_SECONDS, NEW_POD_PAUSE_SECONDS = 30.0, 1.0  # to get credentials, and between tries


@functools.cache
def _client(process: int) -> Any:
    """This process' client; forked ones must not share connections."""
    import requests
    from google.auth import exceptions

    try:
        client = _new_client()
    except (exceptions.DefaultCredentialsError, OSError) as error:
        raise UserError(
            "Google Cloud Storage needs credentials: run `gcloud auth application-default login`, "
            "or set GOOGLE_APPLICATION_CREDENTIALS"
        ) from error
    adapter = requests.adapters.HTTPAdapter(pool_maxsize=CONNECTIONS)
    for scheme in ("https://", "http://"):
        client._http.mount(scheme, adapter)
    return client


def _new_client() -> Any:
    """In a pod of Google's the server that gives credentials knows it only some seconds after its start."""
    from google.auth import exceptions
    from google.cloud import storage

    deadline = time.monotonic() + (NEW_POD_SECONDS if "KUBERNETES_SERVICE_HOST" in os.environ else 0.0)
    while True:
        try:
            return storage.Client()
        except exceptions.DefaultCredentialsError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(NEW_POD_PAUSE_SECONDS)


@functools.cache
def _retry() -> Any:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_delay(initial=0.2, maximum=20.0).with_timeout(TRY_SECONDS)


@functools.cache
def _sound() -> Any:
    """Repeats what its checksum tells was damaged on the way: the library itself asks for it once."""
    from google.api_core.retry import Retry, if_exception_type
    from google.cloud.storage.exceptions import DataCorruption

    return Retry(if_exception_type(DataCorruption), initial=0.2, maximum=20.0, timeout=TRY_SECONDS)


def _blob(path: str) -> Any:
    bucket, name = objects.parts(path)
    if not name:
        raise FileNotFoundError(path)
    return _client(os.getpid()).bucket(bucket).blob(name)


@contextmanager
def _errors(path: str) -> Iterator[None]:
    """Raises what a local file would; `UnavailableError` where repeating did not help."""
    from google.api_core import exceptions
    from google.auth import exceptions as auth

    try:
        yield
    except exceptions.NotFound as error:
        raise FileNotFoundError(f"{path} does not exist") from error
    except (exceptions.Forbidden, exceptions.Unauthorized, auth.RefreshError) as error:
        if isinstance(error, auth.RefreshError) and is_transient(error):
            raise UnavailableError(f"no credentials for {path} for now: {objects.words(error)}") from error
        raise PermissionError(f"access to {path} is denied") from error
    except exceptions.BadRequest as error:  # no bucket's name, or one whose requests somebody has to pay
        raise UserError(f"Google Cloud Storage refuses {path}: {objects.words(error)}") from error
    except (exceptions.GoogleAPICallError, exceptions.RetryError, auth.TransportError, OSError) as error:
        if isinstance(error, (FileNotFoundError, PermissionError)):
            raise
        raise UnavailableError(f"Google Cloud Storage fails at {path}: {objects.words(error)}") from error


def is_transient(error: Any) -> bool:
    """Whether a `RefreshError` tells of a server of credentials out of reach, not of one that refuses."""
    from google.auth.exceptions import TransportError

    # Of the machine's own server its cause alone tells, which has the answer along where there was one.
    no_answer = isinstance(error.__cause__, TransportError) and len(error.__cause__.args) == 1
    return bool(error.retryable) or no_answer


def read(path: str, start: int = 0, length: int | None = None) -> bytes:
    """An object's bytes, or `length` of them (fewer at its end) from `start`."""
    if length == 0:
        return b""
    from google.api_core import exceptions

    with _errors(path):
        end = None if length is None else start + length - 1
        try:
            fetch = _sound()(_blob(path).download_as_bytes)
            data: bytes = fetch(start=start or None, end=end, retry=_retry())
        except exceptions.RequestRangeNotSatisfiable:
            return b""
        return data


def open_read(path: str) -> IO[bytes]:
    """A seekable reader of a large object; a small one is better fetched by `read`."""
    return objects.reader(size(path), lambda start, length: read(path, start, length))


def size(path: str) -> int:
    """An object's bytes, by a request."""
    with _errors(path):
        blob = _blob(path)
        blob.reload(retry=_retry())
        return int(blob.size)


@contextmanager
def open_write(path: str) -> Iterator[IO[bytes]]:
    """Collects an object in a temporary file, then uploads it, from its start again where that fails."""
    with tempfile.TemporaryFile() as file:
        yield file
        size = file.tell()

        def upload() -> None:
            file.seek(0)
            _blob(path).upload_from_file(
                file, size=size, content_type="application/octet-stream", checksum="crc32c", retry=None
            )

        with _errors(path):
            _sound()(_retry()(upload))()


def exists(path: str) -> bool:
    """Whether an object of exactly that name is there."""
    with _errors(path):
        found: bool = _blob(path).exists(retry=_retry())
        return found


def find_bucket(path: str) -> None:
    """Asks for the bucket of an address, as Beam does before it stages anything.

    Raises:
        FileNotFoundError: there is none of that name.
        PermissionError: the right `storage.buckets.get` lacks.
    """
    bucket = objects.parts(path)[0]
    with _errors(f"{SCHEME}{bucket}"):
        _client(os.getpid()).get_bucket(bucket, retry=_retry())


def delete(path: str) -> None:
    """Removes an object; one that is gone is no mistake."""
    with suppress(FileNotFoundError), _errors(path):
        _blob(path).delete(retry=_retry())


def match(pattern: str) -> Iterator[str]:
    """The addresses that a pattern matches: `*` and `?` within a folder, `**` across folders.

    Raises:
        FileNotFoundError: the bucket does not exist.
        ValueError: it is no pattern.
    """
    bucket, name = objects.parts(pattern)
    prefix, wanted = objects.fixed_part(name), objects.expression(name)
    with _errors(f"{SCHEME}{bucket}"):
        listed = _client(os.getpid()).list_blobs(
            bucket, prefix=prefix, fields="items(name),nextPageToken", retry=_retry()
        )
        for blob in listed:
            if wanted.fullmatch(blob.name):
                yield f"{SCHEME}{bucket}/{blob.name}"
