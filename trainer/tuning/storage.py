"""Where a study is kept: a file on a shared disk, or a database.

Promises: all workers of a study agree on the data set, the space and every fixed flag, or the one that does
not ends with what differs; a file that is no study is left as it is; no password is ever shown.
"""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    OperationalError,
    PendingRollbackError,
    ProgrammingError,
    SQLAlchemyError,
)

from canopy import transient
from canopy.cli import TryAgainError, UserError

TERMS = "canopy"  # the study's attribute that says what it is about
UNREACHABLE = (SQLAlchemyError, StorageInternalError)
UNREADABLE = (
    *UNREACHABLE,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AssertionError,
    ImportError,
    RuntimeError,  # a database that another Optuna made
)
# What drivers say where a database is away or full for a while: SQLite's lock, the sockets' words, and
# PostgreSQL's and MySQL's own, which have no codes in common.
TRANSIENT = re.compile(
    r"database is locked|connection refused|timed out|timeout expired|due to .*timeout|wait timeout|deadlock"
    r"|starting up|shutting down|shutdown in progress|in recovery mode|not yet accepting|too many"
    r"|slots are reserved|max_user_connections|terminating connection|server closed the connection"
    r"|closed unexpectedly|eof detected|lost connection|gone away|connection was killed|connection reset"
    r"|broken pipe|no route to host|network is unreachable|temporary failure|no address associated",
    re.IGNORECASE,
)
# Where a database's driver is another package than its module; SQLAlchemy knows modules alone.
DRIVERS = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}


def journal_path(text: str) -> Path | None:
    """The file that `--study` names; None where it is a database's address."""
    return None if "://" in text else Path(text)


def shown(text: str) -> str:
    """`--study` without a password."""
    if journal_path(text):
        return text
    try:
        rendered = make_url(text).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        return text.partition("://")[0] + "://..."
    return re.sub(r"(?i)([?&][^=&]*(?:pass|pwd)[^=&]*=)[^&]*", r"\1***", rendered)


def beside(text: str) -> Path | None:
    """The folder of trials beside a study that is a file; None for a database elsewhere."""
    path = journal_path(text)
    if path is None:
        if not text.startswith("sqlite:///") or text.endswith(":memory:"):
            return None
        path = Path(text.removeprefix("sqlite:///"))
    return path.with_name(f"{path.stem}-trials") if path.name else None  # sqlite:/// names no file


def open_study(
    text: str, name: str, *, terms: dict[str, Any], output: Path, sampler: BaseSampler, pruner: BasePruner
) -> optuna.Study:
    """Opens a study, or begins it.

    Args:
        text: a file, or a database's address as SQLAlchemy takes it.
        name: of the study within it.
        terms: what has to be the same for all its workers: words to JSON's values.
        output: the folder of its trials.
        sampler: draws values.
        pruner: ends bad trials.

    Raises:
        UserError: where it cannot be opened, or is about something else.
        TryAgainError: where its disk or its database does not give it for a reason that may pass.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        how = {"study_name": name, "storage": _storage(text), "sampler": sampler, "pruner": pruner}
        study = _load_or_begin(text, output, how)
        if TERMS not in study.user_attrs:
            study.set_user_attr(TERMS, terms)
        found = differences(study.user_attrs[TERMS], terms)
    except UNREADABLE as error:
        lines = _words(error)
        said = f"--study {shown(text)} cannot be opened ({lines[0]})"
        if isinstance(error, OSError):
            raise transient.told(said, error) from error
        may_pass = isinstance(error, UNREACHABLE) and any(map(TRANSIENT.search, lines))
        raise (TryAgainError if may_pass else UserError)(said) from error
    if found:
        raise UserError(
            f"--study {shown(text)} is about something else ({'; '.join(found)}): take another --study"
        )
    return study


def reason(error: BaseException) -> str:
    """What a database itself says, in one line: Optuna speaks of invalid data, whatever the error."""
    return _words(error)[0]


def differences(earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Lists what a study is about and this worker is not, one `word: was X, is Y` each.

    A word that only one of them has is a difference in the space, and none among the fixed flags: those of
    a newer Canopy may have been added since.
    """
    names = [*earlier, *(name for name in now if name not in earlier)]
    told = []
    for name in names:
        was, is_now = earlier.get(name), now.get(name)
        if was == is_now or (not name.startswith("--space ") and (name not in earlier or name not in now)):
            continue
        old, new = ("not there" if value is None else value for value in (was, is_now))
        told.append(f"{name}: was {old}, is {new}")
    return told


def _words(error: BaseException) -> list[str]:
    """The lines that say why, without the statement and its values, in which any word may stand."""
    cause: BaseException | None = error
    while isinstance(cause, (StorageInternalError, PendingRollbackError)):
        cause = cause.__cause__ or cause.__context__
    cause = cause or error
    lines = str(getattr(cause, "orig", None) or cause).strip().splitlines() or [repr(cause)]
    # Of a host's several addresses each has a line, and those at which nothing listens tell nothing.
    answered = [line for line in lines if "FATAL:" in line and not TRANSIENT.search(line)]
    return answered or lines


def _storage(text: str) -> BaseStorage:
    path = journal_path(text)
    if path is None:
        return _database(text)
    path = path.absolute()
    # Created exclusively, which NFS has guaranteed since version 3; a lock left behind falls after 30 s.
    lock = JournalFileOpenLock(str(path))
    backend = JournalFileBackend(str(path), lock_obj=lock)
    _mend(path, lock)
    return JournalStorage(backend)


def _database(text: str) -> RDBStorage:
    """Connects; again where workers that start together make the same tables at the same moment.

    Raises:
        UserError: where the address cannot be right, or the database's driver is not installed.
    """
    if "@" in (make_url(text).host or ""):  # the password's rest: a driver would tell it as the host's name
        raise UserError(f"--study {text.partition('://')[0]}://...: a password's @ has to be written as %40")
    _check_sqlite(text)
    for pause in (0.5, 1.0, 0.0):
        try:
            # A connection that the database closed while a trial ran is noticed, and made anew.
            return RDBStorage(text, engine_kwargs={"pool_pre_ping": True})
        except ImportError as error:
            module = getattr(error.__cause__, "name", None)
            if module is None:
                raise
            raise UserError(
                f"--study {shown(text)} needs a driver that does not come with Canopy: install it with "
                f"{sys.executable} -m pip install '{DRIVERS.get(module, module)}'"
            ) from error
        except (IntegrityError, OperationalError, ProgrammingError):
            if not pause:
                raise
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _check_sqlite(text: str) -> None:
    """Refuses a database that no other worker could see, or for whose file there is no folder."""
    address = make_url(text)
    if address.get_backend_name() != "sqlite" or address.host or address.query:
        return
    if address.database in (None, "", ":memory:"):
        raise UserError(
            f"--study {text} is a database in memory, which ends with this worker: name a file, as in "
            "sqlite:///study.db"
        )
    folder = Path(address.database).parent
    if not folder.is_dir():
        hint = "" if folder.is_absolute() else f"; from the root it takes four slashes: sqlite:////{folder}"
        raise UserError(f"--study {text} cannot be opened: there is no folder {folder}{hint}")


def _mend(path: Path, lock: JournalFileOpenLock) -> None:
    """Drops a line that a machine's end cut short: with another behind it, no worker could read on.

    Raises:
        ValueError: for a file that is no study. It must stay as it is.
    """
    with path.open("rb") as file:
        first = file.readline()
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        whole = not size or file.read() == b"\n"
    if size and b'"op_code"' not in first:
        raise ValueError("it is no study")
    if whole:
        return
    lock.acquire()
    try:
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)
    finally:
        lock.release()


def _check_new(text: str, output: Path) -> None:
    """Refuses a folder of trials that the study which begins does not know."""
    if any(output.glob("trial-*")):
        path = journal_path(text)
        if path is not None and path.stat().st_size == 0:
            path.unlink()
        raise UserError(
            f"--output {output} holds trials that --study {shown(text)} does not know: take another"
        )


def _load_or_begin(text: str, output: Path, how: dict[str, Any]) -> optuna.Study:
    try:
        return optuna.load_study(**how)
    except KeyError:
        _check_new(text, output)
    try:
        return optuna.create_study(**how, direction="maximize")
    except DuplicatedStudyError:  # another worker was faster
        return optuna.load_study(**how)
