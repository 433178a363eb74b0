"""A change feed beside a table: which rows changed, in which order, kept by triggers.

Whoever follows the feed remembers the highest `seq` it has dealt with. A row is in the feed once, at its last change;
a row that is gone from the table stays in the feed, so that its followers learn of that as well.

A `seq` is the time of the change, in microseconds since 1970, or one more than the one before. So a number is never
given twice, also not by a database that was restored from a copy and then changed in another way: counted numbers would
make its followers take the new changes for those they have dealt with.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Protocol

_NOW = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"


class _Executes(Protocol):
    def execute(self, sql: str) -> object: ...


def follow(database: _Executes, table: str, columns: Sequence[str]) -> None:
    """Create the feed `{table}_changes` (seq, id), with every row there is; changes of `columns` feed it from now on.

    For a migration: `table` has an INTEGER PRIMARY KEY AUTOINCREMENT `id`. An update feeds it only where the value of
    one of the `columns` is another. Never write to `table` with INSERT OR REPLACE: that gives new ids, and fires no
    trigger for the rows it deletes.
    """
    feed = feed_of(table)
    # AUTOINCREMENT remembers the highest number also when the newest change is replaced.
    database.execute(f"CREATE TABLE {feed} (seq INTEGER PRIMARY KEY AUTOINCREMENT, id INTEGER NOT NULL UNIQUE)")
    database.execute(f"INSERT INTO {feed} SELECT {_NOW} + row_number() OVER (ORDER BY id), id FROM {table}")  # noqa: S608 - names of ours
    _make_triggers(database, table, columns)


def follow_values(database: _Executes, table: str, columns: Sequence[str]) -> None:
    """Replace the triggers of a feed made before updates of equal values were left out. For a migration."""
    for name in ("inserted", "updated", "deleted"):
        database.execute(f"DROP TRIGGER {feed_of(table)}_{name}")
    _make_triggers(database, table, columns)


def _make_triggers(database: _Executes, table: str, columns: Sequence[str]) -> None:
    feed = feed_of(table)
    another = " OR ".join(f"old.{column} IS NOT new.{column}" for column in columns)
    events = {
        "inserted": ("INSERT", "", "new"),
        "updated": (f"UPDATE OF {', '.join(columns)}", f"WHEN {another}", "new"),
        "deleted": ("DELETE", "", "old"),
    }
    for name, (event, condition, row) in events.items():
        body = "; ".join(_statements(feed, f"SELECT {row}.id AS id"))
        database.execute(f"CREATE TRIGGER {feed}_{name} AFTER {event} ON {table} {condition} BEGIN {body}; END")


def touch_statements(table: str, where: str) -> tuple[str, str]:
    """The SQL that puts the rows of `table` for which `where` holds at the end of its feed, as if they had changed.

    For what changes a document from another table: a trigger there (`where` may name `new` and `old`), or code that
    executes both within one transaction.
    """
    return _statements(feed_of(table), f"SELECT id FROM {table} WHERE {where}")  # noqa: S608 - names of ours


def _statements(feed: str, ids: str) -> tuple[str, str]:
    # Above the highest that is there, and above the highest there ever was, which is noted at the end of a statement.
    ever = f"SELECT max(seq) FROM sqlite_sequence WHERE name = '{feed}'"  # noqa: S608 - names of ours
    last = f"max({_NOW} - 1, coalesce((SELECT max(seq) FROM {feed}), 0), coalesce(({ever}), 0))"  # noqa: S608
    # They delete and insert: `INSERT OR REPLACE` in a trigger obeys the statement that fired it.
    return (
        f"DELETE FROM {feed} WHERE id IN ({ids})",  # noqa: S608
        f"INSERT INTO {feed} (seq, id) SELECT {last} + row_number() OVER (ORDER BY id), id FROM ({ids})",  # noqa: S608
    )


def feed_of(table: str) -> str:
    """The name of the feed of `table`."""
    return f"{table}_changes"


def is_followed(connection: sqlite3.Connection, table: str) -> bool:
    """Whether `table` has a feed; the database may be older than this code, or still being made."""
    return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (feed_of(table),)).fetchone())


def newest(connection: sqlite3.Connection, table: str) -> int:
    """The number of the last change, 0 without any."""
    row = connection.execute(f"SELECT max(seq) FROM {feed_of(table)}").fetchone()  # noqa: S608
    return int(row[0] or 0)


def has(connection: sqlite3.Connection, table: str, seq: int) -> bool:
    """Whether the history of the table passes through change `seq` for certain; 0 is its beginning.

    If not, the database is a copy from before that change, or that row has changed once more.
    """
    found = connection.execute(f"SELECT 1 FROM {feed_of(table)} WHERE seq = ?", (seq,)).fetchone()  # noqa: S608
    return seq == 0 or found is not None


def seqs(connection: sqlite3.Connection, table: str) -> dict[int, int]:
    """The number of the last change of every row, by id."""
    return dict(connection.execute(f"SELECT id, seq FROM {feed_of(table)}").fetchall())  # noqa: S608


def after(connection: sqlite3.Connection, table: str, seq: int, limit: int) -> list[tuple[int, int]]:
    """Up to `limit` pairs (seq, id) of changes after `seq`, oldest first."""
    rows = connection.execute(
        f"SELECT seq, id FROM {feed_of(table)} WHERE seq > ? ORDER BY seq LIMIT ?",  # noqa: S608
        (seq, limit),
    )
    return [(int(row[0]), int(row[1])) for row in rows]
