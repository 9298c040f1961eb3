"""How every command ends: one clear sentence and the right exit code.

Promises: a `UserError`, too little memory and no place for temporary files are one line on stderr and exit
code 2. Ctrl-C ends with 130, SIGTERM with 143, a reader that went away (`| head`) with 141, a full stdout
with 2. Only a bug shows a traceback (exit code 1). A stream that is closed changes nothing, nor does a full
stderr.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import io
import os
import select
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

from canopy import interrupts

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USER = 2
EXIT_PEER_LOST = 75  # EX_TEMPFAIL of sysexits.h: worth a restart
EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_PIPE = 141  # 128 + SIGPIPE: nobody reads what is printed
EXIT_TERMINATED = 143  # 128 + SIGTERM

NO_TEMPORARY = "No usable temporary directory"  # where a container may write nowhere, in Python's words
THREADS_SECONDS = 3.0  # for threads to end by themselves after an interrupt


class UserError(Exception):
    """The user's mistake: its text is one sentence that names the file, the flag or the row."""


class TryAgainError(Exception):
    """Something is out of reach for now: a restart may well succeed."""


class PeerLostError(TryAgainError):
    """Another worker was lost or did not come."""


def first_line(error: BaseException) -> str:
    """An exception's first line, for a sentence about it; its type's name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def run(command: Callable[[], int | None]) -> int:
    """Calls `command` and turns how it ended into an exit code.

    Args:
        command: the whole work of a command, raising `UserError` or `TryAgainError` where those apply. What
            it returns is its exit code, of which it has told the reason; None: 0.

    Returns:
        That, or one of the EXIT_ codes. A bug's exception is not caught: Python's own traceback and code 1
        serve.
    """
    _open_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A path that the terminal's encoding lacks must not turn finished work into a traceback.
        sys.stdout.reconfigure(errors="backslashreplace")
    lost = ""
    try:
        with interrupts.heeded() as came:
            code = _ending(command, came)
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        code = EXIT_PIPE
    except OSError as error:
        if not _is_full():
            raise
        code, lost = EXIT_OK, error.strerror or first_line(error)
    finally:
        lost = _flush() or lost
    # As with other tools: whoever keeps what is printed must not think it complete.
    return _say(f"error: stdout cannot be written: {lost}", EXIT_USER) if lost and not code else code


def _open_streams() -> None:
    """Lets what is printed to a closed stream go nowhere, and no other file get the stream's number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free
    # Not the descriptors themselves: a library's file may have one by now.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115


def _ending(command: Callable[[], int | None], terminated: list[int]) -> int:
    try:
        return command() or EXIT_OK
    except UserError as error:
        return _say(f"error: {error}", EXIT_USER)
    except TryAgainError as error:
        what = "peer lost" if isinstance(error, PeerLostError) else "out of reach for now"
        return _say(f"{what}: {error}", EXIT_PEER_LOST)
    except FileNotFoundError as error:
        if lacking := _lacking(error.strerror or ""):
            return _say(f"error: {lacking}", EXIT_USER)
        raise
    except MemoryError:
        return _say("error: out of memory: give the command more, or fewer workers to share it", EXIT_USER)
    except KeyboardInterrupt:
        code = EXIT_TERMINATED if terminated else EXIT_INTERRUPTED
        # An interrupt that came while code from a string ran, as libraries' imports do, would end `python -m`
        # by SIGINT itself in place of this code: Python remembers it until the next such code runs.
        exec("")
        _see_to_the_end(code)
        return _say("stopped by SIGTERM" if terminated else "interrupted", code)


def _see_to_the_end(code: int) -> None:
    """Ends the process where Python would wait without end for a thread that a library left behind.

    An interrupt may come between the lines that start Beam's threads and those that would end them.
    """
    main = threading.main_thread()

    def watch() -> None:
        main.join()  # all that the command had to tidy up is done when Python begins to wait for threads
        time.sleep(THREADS_SECONDS)
        if any(not thread.daemon and thread is not main for thread in threading.enumerate()):
            atexit._run_exitfuncs()  # Python would come to these after the threads
            _flush()
            os._exit(code)

    threading.Thread(target=watch, name="canopy-end", daemon=True).start()


def printable(line: str) -> str:
    """A line for a terminal: what would move its cursor, colour it or turn its text around is escaped.

    Names and tags are other people's: those of an archive or a CSV may hold anything.
    """
    if line.isprintable():
        return line
    return "".join(
        c if c.isprintable() or unicodedata.category(c) == "Zs" else c.encode("unicode_escape").decode()
        for c in line
    )


def tell(lines: Iterable[str]) -> None:
    """Prints a command's summary, made `printable`."""
    print("\n".join(map(printable, lines)))


def _say(text: str, code: int) -> int:
    """Prints one line, whatever a library's words within it hold, and leaves it where Kubernetes looks."""
    line = printable(" ".join(text.splitlines()))
    to_stderr(line)
    leave_word(line)
    return code


def to_stderr(line: str) -> None:
    """Prints a line to stderr. On a full disk it is lost: that is no reason to lose the work as well."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise


def leave_word(line: str) -> None:
    """Writes why a pod ends into the file that CANOPY_TERMINATION_LOG names: `kubectl describe` shows it.

    Kubernetes keeps the last 4096 bytes, and what is wrong stands first. A file that cannot be written must
    not hide the reason itself.
    """
    path = os.environ.get("CANOPY_TERMINATION_LOG")
    if path:
        with contextlib.suppress(OSError), open(path, "wb") as file:  # noqa: PTH123
            file.write(line.encode()[:4096].decode(errors="ignore").encode())


def _nobody_reads() -> bool:
    """Whether the other end of stdout or stderr is closed: a pipe of the command's own is another matter."""
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            poll.register(stream.fileno(), select.POLLOUT)  # asked for nothing, macOS tells nothing
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _lacking(said: str) -> str:
    """Which folder the command was not given, by what was said of one that is not there; empty for a bug."""
    if said.startswith(NO_TEMPORARY):
        return f"{said}: TMPDIR names where there is one"
    with contextlib.suppress(FileNotFoundError):
        Path.cwd()
        return ""
    return "the working folder is no longer there: change to another one"


def _is_full() -> bool:
    """Whether stdout takes nothing more: a full disk that the command writes files to is another matter."""
    try:
        print(flush=True)
    except OSError:
        return True
    return False


def _flush() -> str:
    """Writes out what was printed; Python itself would do so at its end, and complain.

    Returns:
        Why it is lost; nothing where it is not, or where nobody reads it.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        # As Python's documentation of SIGPIPE has it: what is left then goes nowhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return "" if isinstance(error, BrokenPipeError) else error.strerror or first_line(error)
    return ""


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Tells a flag's default where it has one: what stands for none is no value that could be given."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, "", []) else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are `UserError`s, and that takes no abbreviations."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            allow_abbrev=False,
            formatter_class=_Help,
        )

    def error(self, message: str) -> NoReturn:
        """Raises instead of printing the whole usage."""
        raise UserError(f"{message} (see --help)")


def utf8(text: str) -> str:
    """A flag's value for a library that takes no other text; a path may hold any bytes.

    Raises:
        ArgumentTypeError: where it is none.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError("is no UTF-8 text, and TensorFlow takes no other") from error
    return text


def path(text: str) -> Path:
    """A flag's value as a path of this machine; ArgumentTypeError where it is empty or an address."""
    if not text or "://" in text:
        raise argparse.ArgumentTypeError(f"must be a path of this machine, and is {text!r}")
    return Path(text)


def check_place(path: str) -> None:
    """Refuses an address of nothing: `gs://`, less its slashes, would be a folder `gs:` of this machine.

    Raises:
        UserError: nothing stands behind its `://`, as where a variable in it was not set.
    """
    _, scheme_ends, place = path.partition("://")
    if scheme_ends and not place.strip("/"):
        raise UserError(f"{path} names no bucket")


def folder(text: str) -> str:
    """A folder's path without slashes behind: in a store `run//export` is another place than `run/export`.

    Raises:
        UserError: it is an address of nothing.
    """
    check_place(text)
    return text.rstrip("/") or text
