"""What several tests need: a small archive, its records, a model trained on them, the real data."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from canopy import quiet
from canopy.sample import SampleSettings, write_archive

ROOT = Path(__file__).resolve().parents[1]
Command = Callable[..., subprocess.CompletedProcess[str]]

with quiet.importing():
    pass  # sets the environment that keeps TensorFlow's chatter out of failing tests

# An example may take a busy machine over Hypothesis' 200 ms, the first one above all: that tells nothing.
settings.register_profile("any pace", parent=settings(), deadline=None)
settings.load_profile("any pace")


def run_module(module: str, *flags: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Runs a module as users do, in the repository's root, and returns how it ended."""
    words = [sys.executable, "-m", module, *map(str, flags)]
    return subprocess.run(words, capture_output=True, text=True, timeout=timeout, cwd=ROOT, check=False)


def without_progress(stderr: str) -> str:
    """What a command has said but for its lines of progress, which it writes where it takes a while."""
    return "".join(line for line in stderr.splitlines(True) if not re.match(r"\w+: [\d,]+ of [\d,]+ ", line))


def has_ipv6() -> bool:
    """Whether this machine has an IPv6 address: a container may know the protocol and have none."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells start background jobs so, children inherit it, and Ctrl-C is something that tests send to them.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def signals_are_left_as_they_were() -> Iterator[None]:
    """A worker run in this process blocks SIGTERM, and every process started later would inherit that."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@pytest.fixture
def files_allowed() -> Iterator[Callable[[int], None]]:
    """Sets how many files this process may open, until the test ends."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda count: resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="session")
def command() -> Command:
    return run_module


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real chips, labels and weights; skips where there is none."""
    folder = Path(os.environ.get("CANOPY_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "planet").is_dir():
        pytest.skip(f"no real data: neither CANOPY_DATA nor {folder} holds it")
    return folder


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample archive of 60 labelled chips, three of them broken, and 12 unlabelled ones, 64 px."""
    output = tmp_path_factory.mktemp("sample") / "archive"
    write_archive(output, SampleSettings(seed=1, labelled=60, unlabelled=12, size=64, odd=1, workers=1))
    return output


@pytest.fixture(scope="session")
def records(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive's records, in several shards."""
    output = tmp_path_factory.mktemp("records") / "tfrecords"
    done = run_module(
        "beam_jobs.preprocess",
        *("--images", archive / "train-jpg", "--labels", archive / "train_v2.csv", "--output", output),
        *("--splits", "train=0.7,validation=0.3", "--num_shards", 3, "--max_bad_fraction", 0.1),
    )
    assert done.returncode == 0, done.stderr
    return output


@dataclass(frozen=True)
class Trained:
    """A run with two workers."""

    model_dir: Path
    stdout: str
    stderr: str

    @property
    def export(self) -> Path:
        return self.model_dir / "export"


SMALLEST = ("--image_size", 32, "--alpha", 0.35, "--weights", "none", "--batch_size", 8, "--log_steps", 2)
TRAINED = (*SMALLEST, "--epochs", 1, "--average_decay", 0.9)  # the flags of the run that tests share


@pytest.fixture(scope="session")
def trained(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The smallest network, trained for one epoch by two workers, its average exported."""
    model_dir = tmp_path_factory.mktemp("run") / "model"
    done = run_module(
        "trainer.launch",
        *("--local_workers", 2, "--", "--data", records, "--model_dir", model_dir, *TRAINED),
    )
    assert done.returncode == 0, done.stderr
    return Trained(model_dir, done.stdout, done.stderr)
