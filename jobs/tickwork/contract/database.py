"""Opening a SQLite file the same way everywhere, and one kind of transaction.

Every file is WAL with foreign keys on. Writers begin IMMEDIATE: a transaction that starts as a reader and upgrades can
fail halfway with "database is locked" however long the busy timeout is. Open transactions are counted, because the
runner asserts that none is when a job yields: a unit is only a unit once it is committed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from tickwork.contract.outcomes import OperatorError

BUSY_TIMEOUT_SECONDS = 30.0

_open: list[str] = []


def connect(
    path: Path,
    *,
    synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
    read_only: bool = False,
    threads: bool = False,
) -> sqlite3.Connection:
    """Open (and unless `read_only` create) the database at `path`, in autocommit: use `transaction` to write.

    `synchronous` FULL is for files whose commit lets something outside proceed (an acknowledgement, a request sent);
    NORMAL loses at most the last commits on a power cut and never corrupts. `threads` lets several threads use the
    connection under a lock of theirs. Raises OperatorError when the file cannot be opened.
    """
    try:
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode={'ro' if read_only else 'rwc'}",
            uri=True,
            timeout=BUSY_TIMEOUT_SECONDS,
            isolation_level=None,
            check_same_thread=not threads,
        )
        if not read_only:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA foreign_keys = ON")
    except (sqlite3.Error, OSError) as error:
        raise OperatorError(f"cannot open the database {path}: {error}") from error
    connection.row_factory = sqlite3.Row
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection, store: str) -> Iterator[sqlite3.Connection]:
    """Run the block in one IMMEDIATE transaction of the store named `store`; an exception rolls all of it back."""
    connection.execute("BEGIN IMMEDIATE")
    _open.append(store)
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    finally:
        _open.remove(store)


def open_transactions() -> list[str]:
    """Names of the stores with a transaction open in this process; empty between two units."""
    return list(_open)
