"""A change feed beside a table: which rows changed, in which order, kept by triggers.

Whoever follows the feed remembers the highest `seq` it has dealt with. A row is in the feed once, at its last change;
a row that is gone from the table stays in the feed, so that its followers learn of that as well.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Protocol


class _Executes(Protocol):
    def execute(self, sql: str) -> object: ...


def follow(database: _Executes, table: str, columns: Sequence[str]) -> None:
    """Create the feed `{table}_changes` (seq, id), with every row there is; changes of `columns` feed it from now on.

    For a migration: `table` has an INTEGER PRIMARY KEY AUTOINCREMENT `id`.
    """
    feed = feed_of(table)
    # The triggers delete and insert: `INSERT OR REPLACE` in a trigger obeys the statement that fired it.
    again = "DELETE FROM {feed} WHERE id = {row}.id; INSERT INTO {feed} (id) VALUES ({row}.id);"
    events = {
        "inserted": ("INSERT", again.format(feed=feed, row="new")),
        "updated": (f"UPDATE OF {', '.join(columns)}", again.format(feed=feed, row="new")),
        "deleted": ("DELETE", again.format(feed=feed, row="old")),
    }
    # AUTOINCREMENT: a number is never given twice, also when the newest change is replaced.
    database.execute(f"CREATE TABLE {feed} (seq INTEGER PRIMARY KEY AUTOINCREMENT, id INTEGER NOT NULL UNIQUE)")
    database.execute(f"INSERT INTO {feed} (id) SELECT id FROM {table} ORDER BY id")  # noqa: S608 - names of ours
    for name, (event, body) in events.items():
        database.execute(f"CREATE TRIGGER {feed}_{name} AFTER {event} ON {table} BEGIN {body} END")


def feed_of(table: str) -> str:
    """The name of the feed of `table`."""
    return f"{table}_changes"


def newest(connection: sqlite3.Connection, table: str) -> int:
    """The number of the last change, 0 without any."""
    row = connection.execute(f"SELECT max(seq) FROM {feed_of(table)}").fetchone()  # noqa: S608
    return int(row[0] or 0)


def after(connection: sqlite3.Connection, table: str, seq: int, limit: int) -> list[tuple[int, int]]:
    """Up to `limit` pairs (seq, id) of changes after `seq`, oldest first."""
    rows = connection.execute(
        f"SELECT seq, id FROM {feed_of(table)} WHERE seq > ? ORDER BY seq LIMIT ?",  # noqa: S608
        (seq, limit),
    )
    return [(int(row[0]), int(row[1])) for row in rows]
