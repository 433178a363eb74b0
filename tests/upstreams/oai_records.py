"""The repository's records: rendered once, kept in list order, changed while they are served."""

import threading
from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

from tests.upstreams.books import Book, xml_text

SECONDS = "YYYY-MM-DDThh:mm:ssZ"
DAYS = "YYYY-MM-DD"

# Sorts after every identifier, so that (datestamp, AFTER_ALL) ends an inclusive window.
_AFTER_ALL = "\U0010ffff"


def utc_stamp(when: datetime, granularity: str = SECONDS) -> str:
    """The datestamp as OAI-PMH writes it."""
    second = when.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
    return second[: len("2020-04-01")] if granularity == DAYS else second


class Rendered(NamedTuple):
    """A record as it goes over the wire, header alone and whole."""

    book: Book
    header: bytes
    record: bytes

    @property
    def key(self) -> tuple[str, str]:
        """The record's place in every list."""
        return utc_stamp(self.book.datestamp), self.book.identifier


class Records:
    """A thread-safe store ordered by (datestamp, identifier); windows are found by bisection."""

    def __init__(self, books: Iterable[Book] = (), granularity: str = SECONDS) -> None:
        self._granularity = granularity
        self._lock = threading.RLock()
        self._by_identifier = {book.identifier: self._render(book) for book in books}
        self._keys = sorted(rendered.key for rendered in self._by_identifier.values())

    def __len__(self) -> int:
        return len(self._keys)

    def put(self, book: Book) -> None:
        """Add the record, or replace the one of the same identifier."""
        rendered = self._render(book)
        with self._lock:
            self._drop(book.identifier)
            self._by_identifier[book.identifier] = rendered
            insort(self._keys, rendered.key)

    def delete(self, identifier: str, when: datetime) -> None:
        """Mark the record deleted; KeyError if there is none."""
        with self._lock:
            book = self._by_identifier[identifier].book
            self.put(replace(book, deleted=True, metadata_xml="", datestamp=when))

    def touch(self, identifier: str, when: datetime) -> None:
        """Give the record a new datestamp, which moves it in the list; KeyError if there is none."""
        with self._lock:
            self.put(replace(self._by_identifier[identifier].book, datestamp=when))

    def remove(self, identifier: str) -> None:
        """Forget the record without a trace, as `transient` permits; KeyError if there is none."""
        with self._lock:
            if not self._drop(identifier):
                raise KeyError(identifier)

    def get(self, identifier: str) -> Rendered | None:
        """The record, or None."""
        with self._lock:
            return self._by_identifier.get(identifier)

    def books(self) -> list[Book]:
        """The current records in list order."""
        with self._lock:
            return [self._by_identifier[identifier].book for _, identifier in self._keys]

    def earliest(self) -> datetime | None:
        """The smallest datestamp, None when empty."""
        with self._lock:
            return self._by_identifier[self._keys[0][1]].book.datestamp if self._keys else None

    def sets(self) -> list[str]:
        """The setSpecs in use."""
        with self._lock:
            return sorted({name for rendered in self._by_identifier.values() for name in rendered.book.sets})

    def window(self, start: str, end: str, set_spec: str, offset: int, count: int) -> tuple[list[Rendered], int]:
        """`count` records from `offset` on of those dated start..end, both included, and how many there are.

        `start` and `end` are stamps to the second or empty for an open end, as `set_spec` is for all sets.
        """
        with self._lock:
            first = bisect_left(self._keys, (start, ""))
            last = bisect_left(self._keys, (end, _AFTER_ALL)) if end else len(self._keys)
            if not set_spec:
                keys = self._keys[min(first + offset, last) : min(first + offset + count, last)]
                return [self._by_identifier[identifier] for _, identifier in keys], last - first
            all_dated = (self._by_identifier[identifier] for _, identifier in self._keys[first:last])
            members = [rendered for rendered in all_dated if set_spec in rendered.book.sets]
            return members[offset : offset + count], len(members)

    def _drop(self, identifier: str) -> bool:
        old = self._by_identifier.pop(identifier, None)
        if old is not None:
            del self._keys[bisect_left(self._keys, old.key)]
        return old is not None

    def _render(self, book: Book) -> Rendered:
        status = ' status="deleted"' if book.deleted else ""
        sets = "".join(f"<setSpec>{xml_text(name)}</setSpec>" for name in book.sets)
        header = (
            f"<header{status}><identifier>{xml_text(book.identifier)}</identifier>"
            f"<datestamp>{utc_stamp(book.datestamp, self._granularity)}</datestamp>{sets}</header>"
        ).encode()
        xml = book.metadata_xml
        metadata = xml.encode() if isinstance(xml, str) else xml
        body = b"" if book.deleted else b"<metadata>%s</metadata>" % metadata
        return Rendered(book, header, b"<record>%s%s</record>" % (header, body))
