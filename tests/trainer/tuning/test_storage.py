"""Where a study is kept: what is worth another try, and what is not."""

import contextlib
import errno
import os
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.storages import RDBStorage
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.orm import Session

from canopy.cli import TryAgainError, UserError
from trainer.tuning import sampling, storage


def open_study(place, tmp_path, terms=None):
    return storage.open_study(
        str(place),
        "canopy",
        terms=terms or {"--epochs": 3},
        output=tmp_path / "trials",
        sampler=sampling.SeededSampler(0),
        pruner=sampling.make_pruner("none", 3),
    )


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ESTALE, TryAgainError), (errno.EIO, TryAgainError), (errno.EACCES, UserError)]
)
def test_a_disk_that_fails_for_a_while_is_worth_another_try(number, kind, tmp_path, monkeypatch):
    path, opened = tmp_path / "study.log", Path.open

    def failing(self, *args, **kwargs):
        if self == path:
            raise OSError(number, os.strerror(number))
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(kind, match=rf"--study .*study\.log cannot be opened .*{os.strerror(number)}"):
        open_study(path, tmp_path)


def test_a_database_that_others_hold_is_worth_another_try(tmp_path):
    path = tmp_path / "study.db"
    open_study(f"sqlite:///{path}", tmp_path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(
            TryAgainError, match=r"--study sqlite:///.*study\.db.* cannot be opened .*is locked"
        ):
            open_study(f"sqlite:///{path}?timeout=0.1", tmp_path)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ('connection to server at "db" (10.0.0.9), port 5432 failed: Connection refused', TryAgainError),
        ("connection failed: FATAL:  the database system is starting up", TryAgainError),
        ("FATAL:  sorry, too many clients already", TryAgainError),
        ("(2013, 'Lost connection to MySQL server during query')", TryAgainError),
        ("connection timeout expired", TryAgainError),
        ("connection failed: FATAL:  the database system is in recovery mode", TryAgainError),
        ("FATAL:  the database system is not yet accepting connections", TryAgainError),
        ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER", TryAgainError),
        ("terminating connection due to administrator command", TryAgainError),
        ("SSL SYSCALL error: EOF detected", TryAgainError),
        ("canceling statement due to lock timeout", TryAgainError),
        ('connection to server at "10.1.2.3", port 5432 failed: Network is unreachable', TryAgainError),
        ("(1053, 'Server shutdown in progress')", TryAgainError),
        ("(1205, 'Lock wait timeout exceeded; try restarting transaction')", TryAgainError),
        ("(1213, 'Deadlock found when trying to get lock; try restarting transaction')", TryAgainError),
        ("(1226, \"User 'me' has exceeded the 'max_user_connections' resource\")", TryAgainError),
        ("(1927, 'Connection was killed')", TryAgainError),
        ("(2006, \"MySQL server has gone away (BrokenPipeError(32, 'Broken pipe'))\")", TryAgainError),
        ("failed to resolve host 'db': [Errno -3] Temporary failure in name resolution", TryAgainError),
        ("failed to resolve host 'db': [Errno -2] Name or service not known", UserError),
        ('invalid connection option "connect_timeouts"', UserError),
        ("(1045, \"Access denied for user 'me'@'localhost' (using password: YES)\")", UserError),
        ('FATAL:  password authentication failed for user "me"', UserError),
        ('FATAL:  database "studies" does not exist', UserError),
        ("attempt to write a readonly database", UserError),
    ],
)
def test_a_database_that_is_away_for_a_while_is_told_from_one_that_is_wrong(
    said, kind, tmp_path, monkeypatch
):
    def fail(*_, **__):
        raise OperationalError("SELECT 1", None, Exception(said))

    monkeypatch.setattr(optuna, "load_study", fail)
    with pytest.raises(kind, match="cannot be opened"):
        open_study(tmp_path / "study.log", tmp_path)


def test_where_one_of_a_hosts_addresses_is_silent_the_one_that_answers_decides(tmp_path, monkeypatch):
    refused = 'connection to server at "localhost" (::1), port 5432 failed: Connection refused'
    answered = 'connection to server at "localhost" (127.0.0.1) failed: FATAL:  database "x" does not exist'

    def fail(*_, **__):
        raise OperationalError("SELECT 1", None, Exception(f"{refused}\n\tIs it running?\n{answered}"))

    monkeypatch.setattr(optuna, "load_study", fail)
    with pytest.raises(UserError, match=r"cannot be opened \(.*FATAL:  database"):
        open_study(tmp_path / "study.log", tmp_path)


def test_a_statements_values_do_not_decide_what_is_worth_another_try(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OperationalError("SELECT 1", {"name": "too many"}, Exception("the disk is read-only"))

    monkeypatch.setattr(optuna, "load_study", fail)
    with pytest.raises(UserError, match=r"cannot be opened \(the disk is read-only\)"):
        open_study(tmp_path / "study.log", tmp_path)


def test_a_study_whose_database_goes_away_while_it_is_begun_is_worth_another_try(tmp_path, monkeypatch):
    lost = OperationalError("COMMIT", None, Exception("terminating connection due to administrator command"))

    def fail(*_, **__):
        raise lost

    monkeypatch.setattr(Session, "commit", fail)
    with pytest.raises(TryAgainError, match=r"cannot be opened \(terminating connection"):
        open_study(f"sqlite:///{tmp_path / 'study.db'}", tmp_path)


def test_workers_that_make_the_same_tables_at_once_try_again(tmp_path, monkeypatch):
    made, tries = RDBStorage, []

    def fail_twice(*args, **kwargs):
        tries.append(args)
        if len(tries) < 3:
            raise ProgrammingError("CREATE TABLE", None, Exception("it exists"))
        return made(*args, **kwargs)

    monkeypatch.setattr(storage, "RDBStorage", fail_twice)
    monkeypatch.setattr(storage, "time", SimpleNamespace(sleep=lambda _: None))
    assert not open_study(f"sqlite:///{tmp_path / 'study.db'}", tmp_path).trials


def test_a_file_that_was_mended_is_open_to_others_at_once(tmp_path):
    path = tmp_path / "study.log"
    open_study(path, tmp_path)
    path.write_bytes(path.read_bytes() + b'{"op_code":5')
    storage._storage(str(path))
    assert [each.name for each in tmp_path.iterdir()] == ["study.log"]
