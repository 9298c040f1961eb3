"""Runners that work on other machines: what can be known to fail there is said before anything is planned.

Promises: a runner that Beam does not know, options that it refuses, a path of this machine for workers in a
cloud, a job server that does not answer: each is one sentence, with nothing read or written yet. So is what
ends a job on a job server's runner, unless it is a bug.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import shutil
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

from beam_jobs import storage
from beam_jobs.stores import gcs
from canopy.cli import TryAgainError, UserError

RETRY_SECONDS = 1.0
# Beam's own name for a job server within the process, in an address' place.
EMBEDDED = "embed"
NOTEBOOKS = "InteractiveRunner"  # gives its results to cells, and breaks on every pandas that Canopy takes
# Begin the names of runners that are for notebooks, for Beam's own tests, or in no release of Beam.
NOT_OFFERED = ("Interactive", "Test", "KafkaStreams")
SERVED = ("FlinkRunner", "PortableRunner", "SparkRunner")  # by a job server, which is none of Python's


def spelled(runner: str) -> str:
    """A runner's name as Beam spells it, which takes it in any case and without its ending.

    Args:
        runner: as the user gave it; empty where there is none. The full name of a class is left as it is.

    Raises:
        UserError: Beam knows no such runner, or it is for notebooks.
    """
    from apache_beam.options.pipeline_options import StandardOptions

    if not runner or "." in runner:
        return runner
    known = {name.lower(): str(name) for name in StandardOptions.KNOWN_RUNNER_NAMES}
    found = known.get(runner.lower()) or known.get(f"{runner.lower()}runner")
    if found is None:
        offered = ", ".join(name for name in known.values() if not name.startswith(NOT_OFFERED))
        raise UserError(f"--runner {runner}: Beam knows {offered}, or a class by its full name")
    if found == NOTEBOOKS:
        raise UserError(f"--runner {found} is for notebooks; without --runner the job runs on this machine")
    return found


def bring_options(runner: str) -> None:
    """Lets Beam know the options that a class by its full name, such as Dask's, defines beside itself.

    Args:
        runner: from `spelled`.
    """
    with contextlib.suppress(Exception):  # Beam's own try at importing it is told, by `check_options`
        importlib.import_module(runner.rpartition(".")[0])


def may_know_more(runner: str) -> bool:
    """Whether a runner may know options that are none of Beam's own in Python: its job server's, or its own.

    Args:
        runner: from `spelled`.
    """
    return runner in SERVED or "." in runner


def is_here(options: Any) -> bool:
    """Whether the job server is one within this process after all, and the workers are, too."""
    from apache_beam.options.pipeline_options import PortableOptions

    portable = options.view_as(PortableOptions)
    return (portable.job_endpoint, portable.environment_type) == (EMBEDDED, "LOOPBACK")


def check(options: Any, **places: Sequence[str]) -> None:
    """Refuses what cannot come to anything on a runner elsewhere.

    Args:
        options: of a run that is not to take place on this machine, from `choosing.parse_options`.
        places: by the flag's name, the paths that its workers open.

    Raises:
        UserError: Dataflow's workers would look for a path of this machine; Beam refuses the options; the
            bucket that it stages in is not there; or no job server answers.
    """
    from apache_beam.options.pipeline_options import PortableOptions, StandardOptions

    runner = options.view_as(StandardOptions).runner
    if runner == "DataflowRunner":
        _check_places(places)
    check_options(options)
    if runner == "DataflowRunner":
        _check_staging(options)
    portable = options.view_as(PortableOptions)
    if portable.job_endpoint:
        for flag in ("job_endpoint", "artifact_endpoint"):
            _await_server(flag, getattr(portable, flag) or EMBEDDED, float(portable.job_server_timeout))
    elif runner == "PortableRunner":
        raise UserError("--runner PortableRunner needs --job_endpoint HOST:PORT, a job server's address")


def _check_places(places: dict[str, Sequence[str]]) -> None:
    for flag, paths in places.items():
        for path in paths:
            if not storage.is_remote(path):
                raise UserError(
                    f"--{flag}: {path} is on this machine, where Dataflow's workers cannot reach it"
                )


def _check_staging(options: Any) -> None:
    """Beam would try to stage in a bucket that is not there for some ten minutes, in silence."""
    from apache_beam.options.pipeline_options import GoogleCloudOptions

    cloud = options.view_as(GoogleCloudOptions)
    flag = "staging_location" if cloud.staging_location else "temp_location"
    place = getattr(cloud, flag) or ""
    if not place.startswith(gcs.SCHEME):
        return
    try:
        gcs.find_bucket(place)
    except FileNotFoundError as error:
        raise UserError(f"--{flag}: there is no bucket of {place}") from error
    except PermissionError as error:
        raise UserError(
            f"--{flag}: the bucket of {place} is denied; Beam needs storage.buckets.get there"
        ) from error


def check_options(options: Any) -> None:
    """Raises `UserError`, in Beam's words, for options that Beam refuses: on this machine too."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import StandardOptions

    try:
        pipeline = beam.Pipeline(options=options)
    except (ValueError, ImportError, AttributeError, TypeError, OSError) as error:
        said = str(error).removeprefix("Pipeline has validations errors:")
        runner = options.view_as(StandardOptions).runner
        whose = f"--runner {runner}" if runner else "Beam's options"
        raise UserError(f"{whose}: {' '.join(said.split())}") from error
    shutil.rmtree(pipeline.local_tempdir, ignore_errors=True)  # only a run would remove it


def _await_server(flag: str, endpoint: str, seconds: float) -> None:
    """Beam itself would try in silence, six times as long as it is told to."""
    if endpoint == EMBEDDED:
        return
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--{flag} must be HOST:PORT, and is {endpoint!r}")
    deadline, told = time.monotonic() + seconds, False
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), RETRY_SECONDS).close()
            return
        except (OSError, OverflowError) as error:
            if time.monotonic() >= deadline:
                raise UserError(
                    f"--{flag} {endpoint}: no job server answers there ({error}); it was given "
                    f"--job_server_timeout {seconds:g} s"
                ) from error
        if not told:
            print(f"waiting for the job server at {endpoint}", file=sys.stderr, flush=True)
            told = True
        time.sleep(RETRY_SECONDS)


def explained(error: Exception) -> UserError | TryAgainError | None:
    """The sentence about what Beam raised when a job server gave up the job, or went away.

    Returns:
        None where the exception is of another kind, or a bug in a worker.
    """
    if ended := re.match(r"Pipeline \S+ failed in state (\w+): (.+)", str(error), re.DOTALL):
        state, why = ended.groups()
        if "Traceback" in why:
            return None
        return UserError(f"the job ended on its runner as {state}: {' '.join(why.split())}")
    if "grpc" not in sys.modules:
        return None
    import grpc

    if isinstance(error, grpc.RpcError) and error.code() is grpc.StatusCode.UNAVAILABLE:
        return TryAgainError(f"the job server does not answer: {error.details()}")
    return None
