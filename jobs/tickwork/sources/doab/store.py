"""doab.db: the records, kept by the newest datestamp the server gave."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator
from operator import attrgetter

import msgspec

from tickwork.contract import times
from tickwork.sources.doab.metadata import Fields, fields_of
from tickwork.sources.doab.response import Record
from tickwork.store.base import Store

LISTS = ("creators", "editors", "contributors", "subjects", "links", "isbns", "isbns_rejected", "series")
_FIELDS = (
    *("title", "description", "creators", "editors", "contributors", "subjects", "publisher", "issued", "year"),
    *("type", "language", "links", "licence", "isbns", "isbns_rejected", "doi", "series", "pages"),
)
CANONICAL = ("identifier", "handle", "datestamp", "deleted", *_FIELDS)
"""The columns that depend on the server alone: equal after any sequence of stops, kills and faults."""

_COLUMNS = (*CANONICAL, "first_seen", "last_changed")
# A record is replaced only by one at least as new: a list that is read again, or late, takes nothing back.
_UPSERT = f"""
INSERT INTO records ({", ".join(_COLUMNS)}) VALUES ({", ".join("?" * len(_COLUMNS))})
ON CONFLICT (identifier) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in CANONICAL[1:])},
  last_changed = excluded.last_changed
WHERE excluded.datestamp >= records.datestamp
  AND ({", ".join(f"excluded.{name}" for name in CANONICAL[1:])}) IS NOT
      ({", ".join(f"records.{name}" for name in CANONICAL[1:])})
"""  # noqa: S608 - the names are the constants above
_EMPTY = Fields()
_values = attrgetter(*_FIELDS)
_encode = msgspec.json.Encoder().encode


class DoabStore(Store):
    """The database of one repository; `pattern` is what the repository's identifiers are like."""

    name = "doab"
    schema = "tickwork.sources.doab.schema"
    version = 4

    def __init__(self, connection: sqlite3.Connection, pattern: re.Pattern[str]) -> None:
        super().__init__(connection)
        self._pattern = pattern

    def save(self, records: Iterable[Record]) -> None:
        """Store live records with all their fields and deleted ones as tombstones, inside a transaction.

        Live records without metadata are passed over: the caller tells of them.
        """
        now = times.show(times.now())
        self.connection.executemany(
            _UPSERT,
            [self._row(record, now) for record in records if record.deleted or record.metadata is not None],
        )

    def is_live(self, identifier: str) -> bool:
        """Whether the record is stored and not deleted."""
        found = self.connection.execute("SELECT 1 FROM records WHERE identifier = ? AND NOT deleted", (identifier,))
        return found.fetchone() is not None

    def live(self) -> dict[str, str]:
        """Datestamp by identifier of all records that are not deleted."""
        rows = self.connection.execute("SELECT identifier, datestamp FROM records WHERE NOT deleted")
        return {row["identifier"]: row["datestamp"] for row in rows}

    def counts(self) -> tuple[int, int]:
        """How many records are live, and how many are tombstones."""
        row = self.connection.execute("SELECT count(*) - total(deleted), total(deleted) FROM records").fetchone()
        return int(row[0]), int(row[1])

    def rows(self, columns: tuple[str, ...] = CANONICAL, *, deleted: bool = True) -> Iterator[sqlite3.Row]:
        """All records in the order of their identifiers, with or without tombstones."""
        condition = "" if deleted else "WHERE NOT deleted"
        return self.connection.execute(f"SELECT {', '.join(columns)} FROM records {condition} ORDER BY identifier")  # noqa: S608

    def _row(self, record: Record, now: str) -> tuple[object, ...]:
        fields = fields_of(record.metadata) if record.metadata is not None and not record.deleted else _EMPTY
        match = self._pattern.fullmatch(record.identifier)
        handle = match.groupdict().get("handle") if match else None
        values = [
            (_encode(value).decode() if value else "[]") if type(value) is list else value for value in _values(fields)
        ]
        head = (record.identifier, handle or fields.handle or None, record.datestamp, int(record.deleted))
        return (*head, *values, now, now)
