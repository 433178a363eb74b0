"""The durable state of a crawl: its windows, what each has listed, the tokens it has used."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from tickwork.contract import times
from tickwork.sources.doab import dates
from tickwork.sources.doab.response import Page, Record


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What a crawl is for, which is all that makes two crawls the same one; the store has it as JSON.

    `first` and `last` are the dates that an operator asked for, empty where the crawl sets its own.
    """

    base_url: str
    prefix: str
    set: str
    first: str = ""
    last: str = ""

    def of_same_list(self, other: Origin) -> bool:
        """Whether both are of one list, whatever their dates."""
        return (self.base_url, self.prefix, self.set) == (other.base_url, other.prefix, other.set)


@dataclass(frozen=True, slots=True)
class Window:
    """One window of datestamps, both ends included, and how far its list was read."""

    id: int
    first: str
    last: str
    token: str
    expires: str
    pages: int
    empty_pages: int
    restarts: int


class CrawlState:
    """The crawl of one verb in the connection's database. All but the reading methods need a transaction."""

    def __init__(self, connection: sqlite3.Connection, verb: str) -> None:
        self._connection = connection
        self._verb = verb

    def origin(self) -> Origin | None:
        """What the running crawl is for, None when none runs."""
        origin = self._crawl("origin")
        return msgspec.json.decode(str(origin), type=Origin) if origin else None

    def first_response(self) -> str:
        """The server's clock when the crawl began."""
        return str(self._crawl("first_response"))

    def closing(self) -> bool:
        """Whether the closing window was added."""
        return bool(self._crawl("closing"))

    def begin(self, origin: Origin, response_date: str, windows: Sequence[tuple[str, str]]) -> None:
        """Start a new crawl, forgetting the one before."""
        self.drop()
        self._connection.execute(
            "INSERT INTO crawls (verb, origin, started, first_response, last_response)"
            " VALUES (?, ?, strftime('%Y-%m-%dT%H:%M:%SZ', 'now'), ?, ?)",
            (self._verb, msgspec.json.encode(origin).decode(), response_date, response_date),
        )
        self._add(windows)

    def drop(self) -> None:
        """Forget the crawl and all it has seen."""
        self._connection.execute("DELETE FROM crawls WHERE verb = ?", (self._verb,))

    def add_closing(self, overlap_days: int) -> None:
        """Add a window from shortly before the end of the last one to the server's latest clock."""
        row = self._connection.execute("SELECT max(last) FROM windows WHERE verb = ?", (self._verb,)).fetchone()
        last = row[0] or self.first_response()
        until = str(self._crawl("last_response"))[: len(last)]
        if until > last:
            first = times.add(dates.parse(last), -overlap_days * times.DAY)
            self._add([(dates.shown(first, day=len(last) == len("2022-01-31")), until)])
        self._connection.execute("UPDATE crawls SET closing = 1 WHERE verb = ?", (self._verb,))

    def next_window(self) -> Window | None:
        """The first window that is not finished, or None."""
        row = self._connection.execute(
            "SELECT id, first, last, token, expires, pages, empty_pages, restarts FROM windows"
            " WHERE verb = ? AND NOT done ORDER BY first LIMIT 1",
            (self._verb,),
        ).fetchone()
        return Window(**row) if row else None

    def saw(self, window: Window, page: Page) -> None:
        """Note a page of the window: its identifiers, its token, the list's length."""
        self._connection.executemany(
            "INSERT INTO seen VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " datestamp = excluded.datestamp, deleted = excluded.deleted WHERE excluded.datestamp >= datestamp",
            [(window.id, record.identifier, record.datestamp, int(record.deleted)) for record in page.records],
        )
        token = page.token.value if page.token else ""
        expires = _by_our_clock(page.token.expires, page.response_date) if page.token else ""
        if token:
            self._connection.execute("INSERT OR IGNORE INTO tokens VALUES (?, ?)", (window.id, token))
        self._connection.execute(
            "UPDATE windows SET token = ?, expires = ?, pages = pages + 1,"
            " empty_pages = CASE WHEN ? THEN 0 ELSE empty_pages + 1 END,"
            " shifted = shifted OR (size IS NOT NULL AND ? IS NOT NULL AND size != ?), size = coalesce(size, ?)"
            " WHERE id = ?",
            (token, expires, bool(page.records), page.size, page.size, page.size, window.id),
        )
        self._connection.execute(
            "UPDATE crawls SET last_response = max(last_response, ?) WHERE verb = ?", (page.response_date, self._verb)
        )

    def used(self, window: Window, token: str) -> bool:
        """Whether the window's list already gave this token."""
        query = "SELECT 1 FROM tokens WHERE window = ? AND token = ?"
        return self._connection.execute(query, (window.id, token)).fetchone() is not None

    def knows_all(self, window: Window, records: Sequence[Record]) -> bool:
        """Whether the window's list already had every one of `records`, unchanged."""
        query = "SELECT 1 FROM seen WHERE window = ? AND identifier = ? AND datestamp = ?"
        return all(
            self._connection.execute(query, (window.id, record.identifier, record.datestamp)).fetchone()
            for record in records
        )

    def figures(self, window: Window) -> tuple[int, int | None, bool, int | None]:
        """How many identifiers the list had, how many it should have, whether it shifted, and its previous count."""
        row = self._connection.execute(
            "SELECT (SELECT count(*) FROM seen WHERE window = windows.id) AS listed, size, shifted, previous"
            " FROM windows WHERE id = ?",
            (window.id,),
        ).fetchone()
        return row["listed"], row["size"], bool(row["shifted"]), row["previous"]

    def finish(self, window: Window) -> None:
        """The window is final."""
        self._connection.execute("UPDATE windows SET done = 1, token = '' WHERE id = ?", (window.id,))
        self._connection.execute("DELETE FROM tokens WHERE window = ?", (window.id,))

    def restart(self, window: Window, *, afresh: bool) -> None:
        """Read the window from its beginning again, remembering how many identifiers it had, or `afresh` nothing."""
        listed = None if afresh else self.figures(window)[0]
        self._forget(window)
        self._connection.execute(
            "UPDATE windows SET token = '', expires = '', pages = 0, empty_pages = 0, size = NULL, shifted = 0,"
            " restarts = CASE WHEN ? THEN 0 ELSE restarts + 1 END, previous = ? WHERE id = ?",
            (afresh, listed, window.id),
        )

    def divide(self, window: Window, halves: Sequence[tuple[str, str]]) -> None:
        """Replace the window by its halves, to be read from their beginnings."""
        self._connection.execute("DELETE FROM windows WHERE id = ?", (window.id,))
        self._add(halves)

    def seen(self, *, deleted: bool) -> Iterator[tuple[str, str]]:
        """Identifier and newest datestamp of all that the crawl listed, either the deleted or the others."""
        return (
            (row["identifier"], row["newest"])
            for row in self._connection.execute(
                "SELECT identifier, max(datestamp) AS newest, deleted FROM seen"
                " WHERE window IN (SELECT id FROM windows WHERE verb = ?) GROUP BY identifier",
                (self._verb,),
            )
            if bool(row["deleted"]) == deleted
        )

    def count(self) -> int:
        """How many identifiers the crawl has listed so far."""
        query = "SELECT count(*) FROM seen WHERE window IN (SELECT id FROM windows WHERE verb = ?)"
        return int(self._connection.execute(query, (self._verb,)).fetchone()[0])

    def _crawl(self, column: str) -> str | int | None:
        row = self._connection.execute(f"SELECT {column} FROM crawls WHERE verb = ?", (self._verb,)).fetchone()  # noqa: S608
        return row[0] if row else None

    def _add(self, windows: Sequence[tuple[str, str]]) -> None:
        rows = [(self._verb, first, last) for first, last in windows]
        self._connection.executemany("INSERT INTO windows (verb, first, last) VALUES (?, ?, ?)", rows)

    def _forget(self, window: Window) -> None:
        for table in ("seen", "tokens"):
            self._connection.execute(f"DELETE FROM {table} WHERE window = ?", (window.id,))  # noqa: S608


def _by_our_clock(expires: str, response_date: str) -> str:
    """When a token expires, by our clock: the server's may be wrong by hours.

    Empty for what is no date, and for one that had passed when it was given: badResumptionToken will tell.
    """
    try:
        moment = times.parse(expires)
    except ValueError:
        return ""
    life = (moment - dates.parse(response_date)).total_seconds()
    return times.add(times.now(), life).isoformat() if life > 0 else ""
