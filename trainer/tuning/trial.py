"""One trial as processes: a launcher with its workers, in a folder of its own.

Promises: what the processes print goes to the folder's log; the epochs they finish are told as they come; and
none of them outlives the trial, nor the search, whether that ends, is stopped or is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from canopy import children, cli, contract
from trainer.launching.supervise import STOP_SECONDS

LOG = "log.txt"
GONE_SECONDS = 5.0  # for a process that was killed; one whose parent does not ask for its end stays listed
PR_SET_PDEATHSIG = 1  # linux/prctl.h
OF_THE_POD = frozenset({"CANOPY_TERMINATION_LOG", contract.RUN_ID, "TF_CONFIG"})  # not for its trials
KEPT_FILES = frozenset({"metrics.jsonl", "run.json", LOG})  # of a trial that is not the best


def folder_of(output: Path, number: int) -> Path:
    """Where a trial's run lies."""
    return output / f"trial-{number:04d}"


def make_folder(output: Path, number: int, previous: int | None) -> Path:
    """Makes a trial's folder, out of that of the trial that it continues.

    Renaming also keeps out what may still run of that trial: it no longer finds its folder.

    Args:
        output: folder of all trials.
        number: the trial's.
        previous: number of the trial that it continues; None: of none.

    Raises:
        FileExistsError: there is a folder of a trial of that number, which is none of this study's.
    """
    folder = folder_of(output, number)
    output.mkdir(parents=True, exist_ok=True)
    if previous is not None:
        with contextlib.suppress(FileNotFoundError):
            folder_of(output, previous).rename(folder)
    folder.mkdir(exist_ok=previous is not None)
    return folder


def trim(folder: Path, keep_export: bool) -> None:
    """Deletes the checkpoints, logs and, unless it is kept, the export of a trial that has ended."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.name in KEPT_FILES or (keep_export and path.name == "export"):
            continue
        # Another worker may be deleting the same.
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def exported_f2(folder: Path) -> float | None:
    """Validation F2 of the export; None where there is none, or no number."""
    try:
        described = json.loads((folder / "export" / contract.MODEL_JSON).read_text(encoding="utf-8"))
        f2 = float(described["metrics"]["f2"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return f2 if math.isfinite(f2) else None


class Training:
    """The processes of one trial. Use as a context manager: none of them is left after it."""

    def __init__(self, folder: Path, launch_flags: Sequence[str], task_flags: Sequence[str]) -> None:
        """Starts them.

        Args:
            folder: the trial's, made already.
            launch_flags: trainer.launch's.
            task_flags: trainer.task's, without --model_dir.
        """
        self._folder, self._read, self._told = folder, 0, 0
        words = [sys.executable, "-m", "trainer.launch", *launch_flags, "--", *task_flags]
        words += ["--model_dir", str(folder)]
        environment = {name: value for name, value in os.environ.items() if name not in OF_THE_POD}
        with (folder / LOG).open("ab") as log:
            self._log_start = log.tell()
            # In a session of its own Ctrl-C reaches the search alone, which then ends the trial in order.
            self._process = subprocess.Popen(
                words,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with(os.getpid()),  # noqa: PLW1509 (a search is one thread)
            )

    def __enter__(self) -> Training:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def poll(self) -> int | None:
        """The launcher's exit code, or None while it runs."""
        return self._process.poll()

    def epochs(self) -> list[tuple[int, float]]:
        """Epoch and validation F2 of each epoch that has ended since the last call."""
        found: list[tuple[int, float]] = []
        try:
            with (self._folder / "metrics.jsonl").open("rb") as file:
                file.seek(self._read)
                lines = file.readlines()
        except OSError:  # not there yet
            return found
        for line in lines:
            if not line.endswith(b"\n"):
                break
            self._read += len(line)
            with contextlib.suppress(ValueError, KeyError, TypeError):  # cut short by an earlier end
                written = json.loads(line)
                epoch, f2 = int(written["epoch"]), float(written["validation"]["f2"])
                if epoch > self._told:  # a resumed run repeats none, but a restarted one may
                    self._told = epoch
                    found.append((epoch, f2))
        return found

    def stop(self) -> None:
        """Asks the processes to save their state and end, and ends by force what does not."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECONDS
            while self._process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
        # A launcher that was killed leaves workers behind; they are of its session.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._see_them_gone()

    def _see_them_gone(self) -> None:
        """Waits for what a killed launcher left: SIGKILL takes its time with a process of much memory."""
        deadline = time.monotonic() + GONE_SECONDS
        with contextlib.suppress(ProcessLookupError, PermissionError):
            while time.monotonic() < deadline:
                with contextlib.suppress(ChildProcessError):  # a container's first process inherits them
                    os.waitpid(-self._process.pid, os.WNOHANG)
                os.killpg(self._process.pid, 0)
                time.sleep(0.02)

    def reason(self, code: int) -> str:
        """Why the processes failed, in few words: their own, where they said some."""
        with (self._folder / LOG).open("rb") as file:
            file.seek(self._log_start)
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
        told = [line for line in lines if line and not line.startswith("launch: ")]
        errors = [line.removeprefix("error: ") for line in told if line.startswith("error: ")]
        end = children.told(code)
        if code == cli.EXIT_USER and errors:
            return errors[-1]
        return f"{end}: {told[-1]}" if told else end


def _end_with(parent: int) -> Callable[[], None] | None:
    """What a new process does first so that it is told to end where its parent is killed; Linux only."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl

    def tie() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was killed before
            os._exit(cli.EXIT_TERMINATED)

    return tie
