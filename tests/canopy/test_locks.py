"""Locks of this machine: held by one process at a time, and by none that has ended."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from canopy import locks
from canopy.cli import UserError
from tests.conftest import ROOT


def test_a_lock_that_its_holders_remove_is_never_held_twice(tmp_path: Path) -> None:
    """Each holder makes a file that must not be there, and removes it; the lock goes with its folder."""
    code = (
        "import os, sys, time\n"
        "from canopy import locks\n"
        "from canopy.cli import UserError\n"
        "held, until = 0, time.monotonic() + 2\n"
        "while time.monotonic() < until:\n"
        "    try:\n"
        "        file = locks.take(sys.argv[1] + '/folder/lock', 'busy')\n"
        "    except UserError as error:\n"
        "        assert str(error) == 'busy', error\n"
        "        continue\n"
        "    os.close(os.open(sys.argv[1] + '/alone', os.O_CREAT | os.O_EXCL))\n"
        "    held += 1\n"
        "    os.unlink(sys.argv[1] + '/alone')\n"
        "    locks.release(file)\n"
        "    try:\n"
        "        os.rmdir(sys.argv[1] + '/folder')\n"
        "    except OSError:\n"
        "        pass\n"
        "print(held)\n"
    )
    several = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    said = [process.communicate(timeout=60) for process in several]
    assert [process.returncode for process in several] == [0, 0, 0], said
    assert sum(int(out) for out, _ in said) > 100


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    code = (
        "import sys\nfrom canopy import locks\nkept = locks.take(sys.argv[1], '')\nprint(flush=True)\ninput()"
    )
    words = [sys.executable, "-c", code, path]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(UserError, match="busy"):
            locks.take(path, "busy")
        holder.send_signal(signal.SIGKILL)
    locks.take(path, "busy").close()


def test_a_lock_that_is_held_for_a_while_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locks.holding(str(path), "busy"):
        assert path.exists()
        with pytest.raises(UserError, match="busy"), locks.holding(str(path), "busy"):
            pass
    assert not path.exists()
    with locks.holding(str(path), "busy"):
        pass


def test_a_lock_on_a_disk_that_is_gone_is_let_go_of(tmp_path: Path) -> None:
    class Gone(io.FileIO):
        def close(self) -> None:
            super().close()
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    locks.release(Gone(tmp_path / "lock", "wb"))


@pytest.mark.parametrize("trap", ["a link", "a pipe"])
def test_what_somebody_else_put_in_a_locks_place_is_neither_followed_nor_waited_for(
    tmp_path: Path, trap: str
) -> None:
    lock, victim = tmp_path / "lock", tmp_path / "victim"
    if trap == "a link":
        lock.symlink_to(victim)
    else:
        os.mkfifo(lock)
    code = (
        "import sys\nfrom canopy import locks\n"
        "try: locks.take(sys.argv[1], '')\nexcept OSError: print('none')"
    )
    words = [sys.executable, "-c", code, str(lock)]
    assert subprocess.run(words, cwd=ROOT, capture_output=True, timeout=30, check=True).stdout == b"none\n"
    assert not victim.exists()
