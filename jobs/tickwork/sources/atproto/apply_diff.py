"""Storing a repository: what differs from what is stored becomes records, blocks, events and counts, in one go."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tickwork.contract.stop import Stop
from tickwork.sources.atproto import searchable_text
from tickwork.sources.atproto.errors import Unwanted
from tickwork.sources.atproto.filter import Filter
from tickwork.sources.atproto.repo.identifiers import cid_bytes, cid_text
from tickwork.sources.atproto.repo.repository import Change, Record, Repository, diff
from tickwork.sources.atproto.store import AtprotoStore

_CHANGES_AT_ONCE = 1000
"""Changes that are written together, and after which the stop is looked at."""


@dataclass(slots=True)
class _Rows:
    """Rows to be written."""

    records: list[tuple[str, str, str, str]] = field(default_factory=list)
    deleted: list[tuple[str, str, str]] = field(default_factory=list)
    blocks: list[tuple[str, bytes, int]] = field(default_factory=list)
    events: list[tuple[str, str, str, str, str, str | None, float]] = field(default_factory=list)
    texts: list[tuple[str, ...]] = field(default_factory=list)
    no_texts: list[tuple[str, str, str]] = field(default_factory=list)
    released: list[str] = field(default_factory=list)


def keep(
    store: AtprotoStore, did: str, repo: Repository, wanted: Filter, *, explicit: bool, ephemeral: bool, stop: Stop
) -> Counter[str]:
    """Make what is stored of `did` equal to `repo`, inside a transaction; gives the number of changes by action.

    `explicit` keeps a repository without a signal. In ephemeral mode there are events and their blocks alone, and every
    record is a create. Raises Unwanted, InvalidRepositoryError and Interrupted: the transaction must then be undone.
    """
    connection = store.connection
    seen = _Signals(wanted, bool(wanted.signals) and not explicit)
    stored = () if ephemeral else _stored(connection, did)
    actions: Counter[str] = Counter()
    collections: Counter[str] = Counter()
    now, rev = time.time(), repo.commit.rev
    rows = _Rows()
    for number, change in enumerate(diff(stored, seen.chosen(repo.records()))):
        collection, _, key = change.path.partition("/")
        actions[change.action] += 1
        cid = _enter(rows, did, collection, key, change, ephemeral=ephemeral)
        rows.events.append((did, rev, collection, key, change.action, cid, now))
        if change.action != "update" and not ephemeral:
            collections[collection] += 1 if change.action == "create" else -1
        if number % _CHANGES_AT_ONCE == _CHANGES_AT_ONCE - 1:
            stop.check()
            _write(store, rows)
            rows = _Rows()
    if seen.missing:
        raise Unwanted(did)
    _write(store, rows)
    _count(connection, did, collections)
    return actions


class _Signals:
    """Chooses records, and looks whether one of all of them is a signal."""

    def __init__(self, wanted: Filter, missing: bool) -> None:
        self._wanted = wanted
        self.missing = missing

    def chosen(self, records: Iterator[Record]) -> Iterator[Record]:
        """The wanted ones among `records`."""
        wants, is_signal = self._wanted.wants, self._wanted.is_signal
        for record in records:
            collection = record.path.partition("/")[0]
            if self.missing and is_signal(collection):
                self.missing = False
            if wants(collection):
                yield record


def _stored(connection: sqlite3.Connection, did: str) -> Iterator[tuple[str, bytes]]:
    # Sorted by an expression, so SQLite has read all of them before it gives the first: they may change on the way.
    rows = connection.execute(
        "SELECT collection || '/' || rkey AS path, cid FROM records WHERE did = ? ORDER BY path", (did,)
    )
    return ((row[0], cid_bytes(row[1])) for row in rows)


def _enter(rows: _Rows, did: str, collection: str, key: str, change: Change, *, ephemeral: bool) -> str | None:
    """Note what a change writes, but for its event; gives its CID as text."""
    searched = collection in searchable_text.COLLECTIONS and not ephemeral
    if change.before is not None:
        rows.released.append(cid_text(change.before))
    if change.cid is None or change.data is None:
        rows.deleted.append((did, collection, key))
        if searched:
            rows.no_texts.append((did, collection, key))
        return None
    cid = cid_text(change.cid)
    # The event refers to the block, and so does the record.
    rows.blocks.append((cid, change.data, 1 if ephemeral else 2))
    if not ephemeral:
        rows.records.append((did, collection, key, cid))
    if searched:
        text = searchable_text.read(collection, change.data)
        if text is None:
            rows.no_texts.append((did, collection, key))
        else:
            rows.texts.append((did, collection, key, *text))
    return cid


def _write(store: AtprotoStore, rows: _Rows) -> None:
    many = store.connection.executemany
    many(
        "INSERT INTO blocks (cid, data, refs) VALUES (?, ?, ?)"
        " ON CONFLICT (cid) DO UPDATE SET refs = refs + excluded.refs",
        rows.blocks,
    )
    many("INSERT OR REPLACE INTO records (did, collection, rkey, cid) VALUES (?, ?, ?, ?)", rows.records)
    many("DELETE FROM records WHERE did = ? AND collection = ? AND rkey = ?", rows.deleted)
    many(
        "INSERT INTO events (kind, did, rev, collection, rkey, action, cid, at) VALUES ('commit', ?, ?, ?, ?, ?, ?, ?)",
        rows.events,
    )
    many(
        "INSERT INTO texts (did, collection, rkey, title, text, langs, tags, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (did, collection, rkey) DO UPDATE SET title = excluded.title, text = excluded.text,"
        " langs = excluded.langs, tags = excluded.tags, created = excluded.created",
        rows.texts,
    )
    many("DELETE FROM texts WHERE did = ? AND collection = ? AND rkey = ?", rows.no_texts)
    store.release(rows.released)


def _count(connection: sqlite3.Connection, did: str, collections: Counter[str]) -> None:
    for collection, change in collections.items():
        if change > 0:
            connection.execute(
                "INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET records = records + excluded.records",
                (did, collection, change),
            )
        elif change < 0:
            connection.execute(
                "DELETE FROM counts WHERE did = ? AND collection = ? AND records = ?", (did, collection, -change)
            )
            connection.execute(
                "UPDATE counts SET records = records - ? WHERE did = ? AND collection = ?", (-change, did, collection)
            )
