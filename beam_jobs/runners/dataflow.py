"""A job on Dataflow: followed while its service is out of reach at times, its end told in one sentence.

Promises: what may pass (429, 5xx, a lost connection) ends no job that goes on; a service that refuses for
good ends the command, with the job's address, and the job where it can.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import Any

from beam_jobs.stores import gcs
from canopy.cli import TryAgainError, UserError

TRANSIENT_CODES = (408, 429)  # and all from 500
AGAIN_SECONDS = 2.0  # before the service is asked anew: not all that may pass is asked again by Beam itself
RESULT = "DataflowPipelineResult"  # Beam's class: by its name, so that other runners need not import it


def is_job(result: Any) -> bool:
    """Whether a pipeline's result is a job on Dataflow."""
    return type(result).__name__ == RESULT


def address(result: Any) -> str:
    """Where a browser shows the job."""
    from apache_beam.options.pipeline_options import GoogleCloudOptions

    cloud = result._options.view_as(GoogleCloudOptions)
    site = "https://console.cloud.google.com/dataflow/jobs"
    return f"{site}/{cloud.region}/{result.job_id()}?project={cloud.project}"


def wait(result: Any) -> None:
    """Waits for a job's end, through times in which the service does not answer.

    Beam asks in a thread of its own, which an error ends; it then raises AssertionError, whatever it was.

    Raises:
        UserError: the service refuses to tell about the job, which goes on.
        Exception: as Beam raises it where the job failed.
    """
    where = address(result)
    print(f"Dataflow runs the job: {where}", file=sys.stderr, flush=True)
    caught: list[BaseException | None] = []

    def catch(args: Any) -> None:
        caught.append(args.exc_value)

    before, threading.excepthook = threading.excepthook, catch
    try:
        while True:
            try:
                result.wait_until_finish()
            except AssertionError:
                error = caught[-1] if caught else None
                caught.clear()
                if error is None:
                    raise
                if not _is_transient(error):
                    with contextlib.suppress(Exception):
                        result.cancel()
                    raise UserError(
                        f"Dataflow refuses to tell about the job, which may go on ({where}): {_said(error)}"
                    ) from error
                print(f"Dataflow does not answer, and is asked again: {_said(error)}", file=sys.stderr)
                time.sleep(AGAIN_SECONDS)
            else:
                return
    finally:
        if threading.excepthook is catch:  # an interrupt has its own, which keeps dying threads quiet
            threading.excepthook = before


def _is_transient(error: BaseException) -> bool:
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import DefaultCredentialsError, RefreshError

    if isinstance(error, GoogleAPICallError):
        return error.code is None or error.code in TRANSIENT_CODES or error.code >= 500
    if isinstance(error, RefreshError):
        return gcs.is_transient(error)
    return not isinstance(error, DefaultCredentialsError)


def explained(error: Exception) -> UserError | TryAgainError | None:
    """The sentence about what Beam raised when a job was submitted to Dataflow, or failed there.

    Returns:
        None where the exception is of another kind, or a bug in a worker.
    """
    kind = type(error).__name__
    if kind == "DataflowRuntimeException":
        head, _, cause = str(error).partition("Error:\n")
        state = head.partition("State: ")[2].rstrip(", ")
        if "Traceback" in cause:
            return None  # a bug, as it would be on this machine
        # Beam has no message where Dataflow gave none in time.
        why = "" if cause.strip() in ("", "None") else f": {' '.join(cause.split())}"
        return UserError(f"the job ended on Dataflow as {state}{why}")
    if kind == "DataflowJobAlreadyExistsError":
        return UserError(f"--runner DataflowRunner: {error}")
    if "google.api_core" not in sys.modules:
        return None
    from google.api_core.exceptions import GoogleAPICallError

    if not isinstance(error, GoogleAPICallError):
        return None
    text = f"Dataflow does not take the job: {_said(error)}"
    return TryAgainError(text) if _is_transient(error) else UserError(text)


def _said(error: BaseException) -> str:
    """The service's own words, without the request's address."""
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    words = " ".join(str(text).split())
    code = getattr(error, "code", None)
    if words.startswith(("GET http", "POST http", "PUT http")):
        words = words.partition(": ")[2]
    return f"{int(code)} {words}"[:400] if isinstance(code, int) else words[:400]
