"""Opening SQLite, and the one kind of transaction."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tickwork.contract.database import connect, open_transactions, transaction
from tickwork.contract.outcomes import OperatorError


@pytest.fixture
def connection(tmp_path: Path) -> sqlite3.Connection:
    made = connect(tmp_path / "db" / "x.db")
    made.execute("CREATE TABLE t (a UNIQUE)")
    return made


def test_a_file_is_made_with_its_folder_in_wal_with_foreign_keys(connection: sqlite3.Connection) -> None:
    pragmas = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "foreign_keys")]
    assert pragmas == ["wal", 1]
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 1


def test_full_synchronous_where_an_acknowledgement_follows(tmp_path: Path) -> None:
    assert connect(tmp_path / "y.db", synchronous="FULL").execute("PRAGMA synchronous").fetchone()[0] == 2


def test_a_transaction_commits_all_of_its_block(connection: sqlite3.Connection) -> None:
    with transaction(connection, "t"):
        connection.execute("INSERT INTO t VALUES (1)")
        assert open_transactions() == ["t"]
    assert open_transactions() == []
    assert not connection.in_transaction
    assert connection.execute("SELECT a FROM t").fetchall()


def test_a_transaction_that_fails_leaves_nothing(connection: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.IntegrityError), transaction(connection, "t"):
        connection.executemany("INSERT INTO t VALUES (?)", [(1,), (1,)])
    assert connection.execute("SELECT count(*) FROM t").fetchone()[0] == 0
    assert open_transactions() == []


def test_a_generator_closed_inside_a_transaction_leaves_nothing(connection: sqlite3.Connection) -> None:
    def work() -> object:
        with transaction(connection, "t"):
            connection.execute("INSERT INTO t VALUES (1)")
            yield

    generator = work()
    next(generator)  # type: ignore[call-overload]
    assert open_transactions() == ["t"]
    generator.close()  # type: ignore[attr-defined]
    assert open_transactions() == []
    assert connection.execute("SELECT count(*) FROM t").fetchone()[0] == 0


def test_a_transaction_that_cannot_begin_is_not_counted_as_open(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN")
    with pytest.raises(sqlite3.OperationalError), transaction(connection, "t"):
        pytest.fail("a transaction within a transaction")
    assert open_transactions() == []


def test_read_only_neither_makes_nor_changes(tmp_path: Path, connection: sqlite3.Connection) -> None:
    with pytest.raises(OperatorError, match=r"cannot open the database .*absent\.db"):
        connect(tmp_path / "absent.db", read_only=True)
    assert not (tmp_path / "absent.db").exists()
    reader = connect(tmp_path / "db" / "x.db", read_only=True)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("INSERT INTO t VALUES (1)")


@pytest.mark.parametrize("name", ["with space", "q?mode=memory", "per%20cent", "hash#x", "ü"])
def test_any_file_name_is_that_file(tmp_path: Path, name: str) -> None:
    connect(tmp_path / name).execute("CREATE TABLE t (a)")
    assert (tmp_path / name).exists()
    assert connect(tmp_path / name, read_only=True).execute("SELECT count(*) FROM t").fetchone()[0] == 0


def test_what_is_no_database_is_an_operators_error(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"no database" * 500)
    with pytest.raises(OperatorError, match="file is not a database"):
        connect(tmp_path / "x.db")
