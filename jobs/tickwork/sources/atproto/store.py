"""atproto.db: what is written in one transaction of its own; see schema.py for the tables."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable

from tickwork.store.base import Store

BUSY_SECONDS = 300
GONE = ("deactivated", "takendown", "suspended", "deleted", "tombstoned")
"""The states of an account that has no repository to be had, now or for good."""


class AtprotoStore(Store):
    """The database of the repositories. Its methods that write need a transaction of the store's."""

    name = "atproto"
    schema = "tickwork.sources.atproto.schema"
    version = 6

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        # One repository is one transaction, and the largest take minutes: whoever wants to write meanwhile waits.
        connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")

    def tell_account(self, did: str, status: str) -> bool:
        """Store an event if another status was told last; says whether. `status`: active, removed, or one of GONE."""
        told = self.connection.execute(
            "UPDATE repos SET account = ?, changed = ? WHERE did = ? AND account != ?",
            (status, time.time(), did, status),
        )
        if not told.rowcount:
            return False
        active = status == "active"
        self.connection.execute(
            "INSERT INTO events (kind, did, active, status, at) VALUES ('account', ?, ?, ?, ?)",
            (did, active, None if active else status, time.time()),
        )
        return True

    def release(self, cids: Iterable[str]) -> None:
        """One reference less to each of these blocks (as often as it comes up); those with none left are deleted."""
        listed = [(cid,) for cid in cids]
        self.connection.executemany("UPDATE blocks SET refs = refs - 1 WHERE cid = ?", listed)
        self.connection.executemany("DELETE FROM blocks WHERE cid = ? AND refs = 0", listed)

    def wipe(self, did: str, rev: str | None = None) -> int:
        """Delete all records of a repository, with an event for each; gives how many there were."""
        rows = self.connection.execute("SELECT collection, rkey, cid FROM records WHERE did = ?", (did,)).fetchall()
        now = time.time()
        self.connection.executemany(
            "INSERT INTO events (kind, did, rev, collection, rkey, action, at)"
            " VALUES ('commit', ?, ?, ?, ?, 'delete', ?)",
            [(did, rev, row["collection"], row["rkey"], now) for row in rows],
        )
        for table in ("records", "counts", "texts"):
            self.connection.execute(f"DELETE FROM {table} WHERE did = ?", (did,))  # noqa: S608 - the names above
        self.release(row["cid"] for row in rows)
        return len(rows)
