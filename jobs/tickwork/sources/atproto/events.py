"""The events: what happened to records and accounts, numbered without a gap, in the order of its commits."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator

from tickwork.contract.outcomes import OperatorError
from tickwork.contract.units import Unit
from tickwork.sources.atproto.settings import AtprotoSettings
from tickwork.sources.atproto.store import AtprotoStore

EPHEMERAL_HOURS = 1.0
_AT_ONCE = 5000


def prune(store: AtprotoStore, settings: AtprotoSettings) -> Iterator[Unit]:
    """Delete the events that are old enough, and the blocks to which only they referred; a unit is some of them."""
    hours = EPHEMERAL_HOURS if settings.ephemeral else settings.event_retention_hours
    before = time.time() - hours * 3600
    while True:
        with store.transaction():
            # The oldest come first, and stop at the first that is young: so the numbers that are left have no gap.
            rows = store.connection.execute(
                "SELECT seq, cid, at FROM events ORDER BY seq LIMIT ?", (_AT_ONCE,)
            ).fetchall()
            old = []
            for row in rows:
                if row["at"] >= before:
                    break
                old.append(row)
            if old:
                store.connection.execute("DELETE FROM events WHERE seq <= ?", (old[-1]["seq"],))
                store.release(row["cid"] for row in old if row["cid"])
        if old:
            yield Unit(items=0, note=f"{len(old)} events pruned")
        if len(old) < _AT_ONCE:
            return


def since(connection: sqlite3.Connection, seq: int, limit: int) -> list[sqlite3.Row]:
    """Up to `limit` events after `seq`, in order, without a gap; 0 is the oldest there is.

    Raises OperatorError when events after `seq` were pruned, or `seq` is of the future: whoever follows must then begin
    with what is stored.
    """
    # Before the rows: what is stored between the two is not to be taken for pruned.
    last = newest(connection)
    rows = connection.execute("SELECT * FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit)).fetchall()
    first = int(rows[0]["seq"]) if rows else last + 1
    if seq and first > seq + 1:
        raise OperatorError(
            f"the events from {seq + 1} to {first - 1} were pruned; read the records again, "
            f"then continue after {first - 1}"
        )
    if seq > last:
        raise OperatorError(f"there is no event {seq}: the last is {last}. Is this another database?")
    return rows


def newest(connection: sqlite3.Connection) -> int:
    """The number of the last event there was, 0 without any."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return int(row[0]) if row else 0
