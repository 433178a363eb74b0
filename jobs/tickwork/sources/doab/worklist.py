"""The worklist of the backfill: every active identifier that is not stored, newest first, and what became of it.

States: todo; ok, stored; gone, deleted upstream; present, stored by somebody else meanwhile; retry, to be asked for
again later; review, given up until a human looks.
"""

from __future__ import annotations

import datetime as dt
import re
import sqlite3
from collections.abc import Collection, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from tickwork.contract import times
from tickwork.sources.doab.identifier_lists import order_key
from tickwork.sources.doab.store import DoabStore
from tickwork.upstream.backoff import backoff

State = Literal["ok", "gone", "present", "retry", "review"]

RETRY_SECONDS = 60.0
RETRY_CAP_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Item:
    """One identifier to ask for, and how often that was tried."""

    identifier: str
    attempts: int


def plan(active: Iterable[str], live: Container[str], pattern: re.Pattern[str]) -> list[str]:
    """The identifiers of `active` that are not among those stored as live records, newest first."""
    return sorted((i for i in active if i not in live), key=lambda i: order_key(pattern, i), reverse=True)


OWN = "own"
"""The name of the worklist that our own discovery fills; another file's list goes by its path."""


class Worklist:
    """One of the worklists in the store's database. What changes it needs a transaction of the store's."""

    def __init__(self, store: DoabStore, name: str) -> None:
        self._connection = store.connection
        self._name = name

    def fill(self, identifiers: Collection[str], malformed: Collection[str]) -> None:
        """Replace the worklist; `malformed` identifiers go straight to review."""
        self._connection.execute("DELETE FROM worklist WHERE list = ?", (self._name,))
        self._connection.executemany(
            "INSERT INTO worklist (list, position, identifier) VALUES (?, ?, ?)",
            [(self._name, position, identifier) for position, identifier in enumerate(identifiers, start=1)],
        )
        self._connection.executemany(
            "UPDATE worklist SET state = 'review', why = 'malformed identifier', settled = ?"
            " WHERE list = ? AND identifier = ?",
            [(_now(), self._name, identifier) for identifier in malformed],
        )

    def settle_present(self) -> None:
        """Settle what was never tried and is stored by now (a harvest was quicker)."""
        self._connection.execute(
            "UPDATE worklist SET state = 'present', settled = ? WHERE list = ? AND state = 'todo' AND EXISTS"
            " (SELECT 1 FROM records WHERE records.identifier = worklist.identifier AND NOT deleted)",
            (_now(), self._name),
        )

    def items(self) -> Iterator[Item]:
        """What to ask for now: all that is new, newest first, then what is due again; looks afresh at each step."""
        due = (
            "SELECT identifier, attempts FROM worklist WHERE list = ? AND state = 'retry' AND next_attempt <= ?"
            " ORDER BY next_attempt, position LIMIT 1"
        )
        while True:
            row = self._connection.execute(
                "SELECT identifier, attempts FROM worklist WHERE list = ? AND state = 'todo' ORDER BY position LIMIT 1",
                (self._name,),
            ).fetchone()
            row = row or self._connection.execute(due, (self._name, _now())).fetchone()
            if row is None:
                return
            yield Item(row["identifier"], row["attempts"])

    def settle(self, item: Item, state: State, why: str = "", *, soon: bool = False) -> None:
        """Note what became of an item; `retry` puts it off for minutes, doubling up to a day, or `soon` only last."""
        attempts = item.attempts + (state != "present")
        wait = dt.timedelta(seconds=0 if soon else backoff(attempts, RETRY_SECONDS, RETRY_CAP_SECONDS))
        due = (times.now() + wait).isoformat(timespec="microseconds") if state == "retry" else ""
        self._connection.execute(
            "UPDATE worklist SET state = ?, attempts = ?, next_attempt = ?, settled = ?, why = ?"
            " WHERE list = ? AND identifier = ?",
            (state, attempts, due, _now(), why[:300], self._name, item.identifier),
        )

    def backlog(self) -> int:
        """How many are still to be asked for, now or later."""
        query = "SELECT count(*) FROM worklist WHERE list = ? AND state IN ('todo', 'retry')"
        return int(self._connection.execute(query, (self._name,)).fetchone()[0])

    def next_due(self) -> str:
        """When the next retry is due, an empty string if there is none."""
        query = "SELECT min(next_attempt) FROM worklist WHERE list = ? AND state = 'retry'"
        return self._connection.execute(query, (self._name,)).fetchone()[0] or ""

    def counts(self) -> dict[str, int]:
        """Number of items by state."""
        rows = self._connection.execute(
            "SELECT state, count(*) AS items FROM worklist WHERE list = ? GROUP BY state ORDER BY state", (self._name,)
        )
        return {row["state"]: row["items"] for row in rows}

    def settled_since(self, moment: dt.datetime, limit: int) -> list[str]:
        """The states of the last `limit` items settled after `moment`, oldest first."""
        rows = self._connection.execute(
            "SELECT state FROM worklist WHERE list = ? AND settled > ? AND state IN ('ok', 'gone', 'review')"
            " AND why != ? ORDER BY settled DESC LIMIT ?",
            (self._name, moment.isoformat(timespec="microseconds"), "malformed identifier", limit),
        )
        return [row["state"] for row in rows][::-1]

    def reviews(self) -> list[sqlite3.Row]:
        """What waits for a human: identifier, attempts, why."""
        query = "SELECT identifier, attempts, why FROM worklist WHERE list = ? AND state = 'review' ORDER BY position"
        return self._connection.execute(query, (self._name,)).fetchall()


def names(store: DoabStore) -> list[str]:
    """The names of the worklists there are, our own first."""
    rows = store.connection.execute("SELECT DISTINCT list FROM worklist ORDER BY list != ?, list", (OWN,))
    return [row["list"] for row in rows]


def _now() -> str:
    return times.now().isoformat(timespec="microseconds")
