"""One small database, shared by all processes of the machine, that says who may send a request to which host, when.

A request first takes a slot here: a lease (its flight), the time of the next one, one more request counted, all in one
committed transaction; a write that fails sends nothing. Holds live here too, so they outlast the pass that was told.

This module stays light (no HTTP library): `tickwork status` opens it on its fast path.
"""

from __future__ import annotations

import datetime as dt
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tickwork.contract import times
from tickwork.contract.database import connect
from tickwork.contract.outcomes import Held, OperatorError
from tickwork.contract.processes import boot_id, is_running, started_at
from tickwork.upstream.backoff import backoff
from tickwork.upstream.hosts import DEFAULT_PORTS, HostKey, InvalidHostError, host_key
from tickwork.upstream.policy import DAY_SECONDS, MAX_HOLD_SECONDS, Policy

KEEP_TRAFFIC_DAYS = 90
# How often to look again while all leases of a host are out: nobody tells us when one ends.
LEASE_POLL_SECONDS = 0.1
# First hold after a 429 or 503 that names no time, and the longest: each further one in a row doubles it.
STRIKES = {429: (15 * 60.0, DAY_SECONDS), 503: (60.0, 3600.0)}

_VERSION = 1
_SCHEMA = """
CREATE TABLE hosts (
    host TEXT PRIMARY KEY,
    next_allowed REAL NOT NULL DEFAULT 0,  -- unix time
    spacing REAL NOT NULL DEFAULT 0,       -- seconds of silence that next_allowed stands for
    hold_until REAL,                       -- unix time
    hold_why TEXT,
    hold_since REAL,
    strikes INTEGER NOT NULL DEFAULT 0     -- 429s and 503s in a row that named no time
) STRICT, WITHOUT ROWID;
CREATE TABLE flights (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice: a late settle must not end another's lease
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    pid_started INTEGER NOT NULL,          -- clock ticks since boot, tells a reused pid
    boot TEXT NOT NULL,
    deadline REAL NOT NULL                 -- unix time
) STRICT;
CREATE INDEX flights_host ON flights (host);
CREATE TABLE traffic (
    day TEXT NOT NULL,                     -- UTC, YYYY-MM-DD
    host TEXT NOT NULL,
    requests INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    answers_429 INTEGER NOT NULL DEFAULT 0,
    answers_503 INTEGER NOT NULL DEFAULT 0,
    faults INTEGER NOT NULL DEFAULT 0,
    holds INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (day, host)
) STRICT, WITHOUT ROWID;
CREATE TABLE audit (
    at REAL NOT NULL,                      -- unix time
    host TEXT NOT NULL,
    action TEXT NOT NULL,
    who TEXT NOT NULL,
    why TEXT NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Flight:
    """A lease on a host: one request that may be sent now and must be settled when it has ended."""

    id: int
    host: str
    policy: Policy


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold in force: `host` must not be called before `until`; times are UTC."""

    host: str
    until: dt.datetime
    since: dt.datetime
    why: str
    strikes: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one host heard from this machine on one UTC day; `requests` counts slots given."""

    host: str
    day: dt.date
    requests: int
    bytes: int
    answers_429: int
    answers_503: int
    faults: int
    holds: int


class Slots:
    """The slots database at `path` (`Paths.database("slots")`); usable from many threads.

    Every method raises OperatorError when the database cannot be read or written. `read_only` neither creates nor
    changes anything, and needs an existing file. `clock` gives unix seconds.
    """

    def __init__(self, path: Path, *, read_only: bool = False, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._connection = connect(path, synchronous="FULL", read_only=read_only, threads=True)
        self._prepare(read_only)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Slots:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def claim(self, host: HostKey, policy: Policy, deadline_seconds: float) -> Flight | float:
        """Take a slot for one request to `host`, or give the seconds after which to ask again.

        The lease ends with `settle`, with the process, or after `deadline_seconds`. Raises Held while the host is on
        hold. Nothing may be sent unless a Flight came back.
        """
        with self._writing("no request was sent") as db:
            now = self._clock()
            row = self._host(db, host)
            held = self._held(db, row, now, policy.max_hold_seconds)
            wait = 0.0 if held else self._wait(db, row, policy, now)
            if not held and wait <= 0:
                flight = self._take(db, host, policy, now, now + deadline_seconds)
        if held:
            raise held
        return wait if wait > 0 else flight

    def settle(
        self,
        flight: Flight,
        *,
        bytes: int,
        status: int,
        hold_until: dt.datetime | None = None,
        why: str = "",
        fault: bool = False,
    ) -> Held | None:
        """End the lease of `flight` and record what came of it; give the hold this answer led to, if any.

        `bytes` is the body's size as sent, `status` 0 when no answer came, `hold_until` what the server asked for.
        A 429 or 503 without it is held by strikes. The hold and the end of the lease are one transaction.
        """
        with self._writing(f"{flight.host} answered {status}: {why or 'no hold'} was not recorded") as db:
            now = self._clock()
            db.execute("DELETE FROM flights WHERE id = ?", (flight.id,))
            row = self._host(db, flight.host)
            if flight.policy.concurrency == 1:
                # The server counts its silence from the end of a request, so the interval starts there.
                self._push(db, row, now)
            strikes = int(row["strikes"])
            until = hold_until.timestamp() if hold_until else None
            if status in STRIKES and until is None:
                until = now + backoff(strikes, *STRIKES[status])
                strikes += 1
            elif 0 < status < 400:
                strikes = 0
            db.execute("UPDATE hosts SET strikes = ? WHERE host = ?", (strikes, flight.host))
            self._count(
                db,
                flight.host,
                now,
                bytes=bytes,
                answers_429=status == 429,
                answers_503=status == 503,
                faults=fault,
                holds=until is not None,
            )
            if until is None:
                return None
            return self._place(db, row, now, until, why or f"answered {status}", flight.policy.max_hold_seconds)

    def hold(self, host: HostKey, until: dt.datetime, why: str, *, max_hold_seconds: float = MAX_HOLD_SECONDS) -> Held:
        """Keep everybody from calling `host` before `until`; a longer hold in force stays. Gives the hold in force."""
        with self._writing(f"the hold on {host} until {times.show(until)} was not recorded") as db:
            now = self._clock()
            self._count(db, host, now, holds=1)
            return self._place(db, self._host(db, host), now, until.timestamp(), why, max_hold_seconds)

    def holds(self) -> list[Hold]:
        """All holds in force, by host."""
        with self._reading() as db:
            rows = db.execute("SELECT * FROM hosts WHERE hold_until > ? ORDER BY host", (self._clock(),)).fetchall()
        return [
            Hold(
                row["host"],
                times.of_unix(row["hold_until"]),
                times.of_unix(row["hold_since"]),
                row["hold_why"],
                row["strikes"],
            )
            for row in rows
        ]

    def clear(self, host: str, who: str, why: str) -> HostKey:
        """Lift the hold on `host` and forget its strikes, on the word of `who`, which is kept in the audit table.

        `host` is a key, or any other spelling of the server, a URL too; gives the key. Raises OperatorError when `why`
        is empty or no hold is in force.
        """
        if not why.strip():
            raise OperatorError(f'give a reason to clear a hold: tickwork holds clear {host} --why "..."')
        try:
            # As `tickwork holds` shows it, or with the port that its scheme takes for granted.
            keys = [host_key(host.strip(), scheme) for scheme in ("", *DEFAULT_PORTS)]
        except InvalidHostError as error:
            raise OperatorError(f"{host!r} does not name a server: {error}. See tickwork holds") from error
        with self._writing(f"the hold on {host} stays") as db:
            now = self._clock()
            for key in keys:
                cleared = db.execute(
                    "UPDATE hosts SET hold_until = NULL, hold_why = NULL, hold_since = NULL, strikes = 0"
                    " WHERE host = ? AND hold_until > ?",
                    (key, now),
                )
                if cleared.rowcount:
                    db.execute("INSERT INTO audit VALUES (?, ?, 'clear', ?, ?)", (now, key, who, why.strip()))
                    return key
        raise OperatorError(f"there is no hold on {keys[0]}; see: tickwork holds")

    def report(self, days: int) -> list[Traffic]:
        """Traffic of the last `days` UTC days (1 is today), newest day first, then by host."""
        since = times.add(times.of_unix(self._clock()), -(days - 1) * times.DAY).date()
        with self._reading() as db:
            rows = db.execute(
                "SELECT host, day, requests, bytes, answers_429, answers_503, faults, holds FROM traffic"
                " WHERE day >= ? ORDER BY day DESC, host",
                (since.isoformat(),),
            ).fetchall()
        return [Traffic(row["host"], dt.date.fromisoformat(row["day"]), *row[2:]) for row in rows]

    # The parts of a claim, inside its transaction.

    def _host(self, db: sqlite3.Connection, host: str) -> sqlite3.Row:
        db.execute("INSERT INTO hosts (host) VALUES (?) ON CONFLICT DO NOTHING", (host,))
        row: sqlite3.Row = db.execute("SELECT * FROM hosts WHERE host = ?", (host,)).fetchone()
        return row

    def _held(self, db: sqlite3.Connection, row: sqlite3.Row, now: float, max_hold_seconds: float) -> Held | None:
        until = row["hold_until"]
        if until is None or until <= now:
            return None
        if until > now + max_hold_seconds:
            # Only a clock that was set back can bring this about; a hold of years would be a silent halt.
            until = now + max_hold_seconds
            db.execute("UPDATE hosts SET hold_until = ? WHERE host = ?", (until, row["host"]))
        return Held(row["host"], times.of_unix(until), row["hold_why"])

    def _wait(self, db: sqlite3.Connection, row: sqlite3.Row, policy: Policy, now: float) -> float:
        """Seconds until a slot may be free; 0 when one is."""
        leases = db.execute("SELECT * FROM flights WHERE host = ?", (row["host"],)).fetchall()
        over = [(lease["id"],) for lease in leases if lease["deadline"] <= now or not _alive(lease)]
        db.executemany("DELETE FROM flights WHERE id = ?", over)
        if len(leases) - len(over) >= policy.concurrency:
            return LEASE_POLL_SECONDS
        last = row["next_allowed"] - row["spacing"]
        if last > now:
            # The clock was set back: the last request was not in the future.
            last = now
            db.execute("UPDATE hosts SET next_allowed = ? WHERE host = ?", (now + row["spacing"], row["host"]))
        return float(max(0.0, last + max(row["spacing"], policy.interval_seconds) - now))

    def _take(self, db: sqlite3.Connection, host: str, policy: Policy, now: float, deadline: float) -> Flight:
        spacing = policy.interval_seconds + random.uniform(0.0, policy.jitter_seconds)  # noqa: S311 - a spread, no secret
        db.execute("UPDATE hosts SET next_allowed = ?, spacing = ? WHERE host = ?", (now + spacing, spacing, host))
        self._count(db, host, now, requests=1)
        pid = os.getpid()
        cursor = db.execute(
            "INSERT INTO flights (host, pid, pid_started, boot, deadline) VALUES (?, ?, ?, ?, ?)",
            (host, pid, started_at(pid), boot_id(), deadline),
        )
        assert cursor.lastrowid is not None
        return Flight(cursor.lastrowid, host, policy)

    def _push(self, db: sqlite3.Connection, row: sqlite3.Row, now: float) -> None:
        if row["next_allowed"] < now + row["spacing"]:
            db.execute("UPDATE hosts SET next_allowed = ? WHERE host = ?", (now + row["spacing"], row["host"]))

    def _place(
        self, db: sqlite3.Connection, row: sqlite3.Row, now: float, until: float, why: str, max_hold_seconds: float
    ) -> Held:
        """Place a hold, or keep a longer one that is in force."""
        standing = self._held(db, row, now, max_hold_seconds)
        until = min(until, now + max_hold_seconds)
        if standing and standing.until.timestamp() >= until:
            return standing
        since = row["hold_since"] if standing else now
        db.execute(
            "UPDATE hosts SET hold_until = ?, hold_why = ?, hold_since = ? WHERE host = ?",
            (until, why, since, row["host"]),
        )
        return Held(row["host"], times.of_unix(until), why)

    def _count(self, db: sqlite3.Connection, host: str, now: float, **counts: int) -> None:
        day = _day(now)
        db.execute("INSERT INTO traffic (day, host) VALUES (?, ?) ON CONFLICT DO NOTHING", (day, host))
        columns = ", ".join(f"{name} = {name} + ?" for name in counts)
        db.execute(
            f"UPDATE traffic SET {columns} WHERE day = ? AND host = ?",  # noqa: S608 - names are this module's own
            (*(int(count) for count in counts.values()), day, host),
        )

    # Opening, and the one way to read and to write.

    def _prepare(self, read_only: bool) -> None:
        with self._reading() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION or (read_only and version != _VERSION):
            raise OperatorError(f"{self.path} has schema {version}, this tickwork reads {_VERSION}")
        if read_only:
            return
        with self._writing("the slots cannot be used") as db:
            # Looked at again inside the transaction: another process may have been first.
            if db.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in _SCHEMA.split(";\n"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_VERSION}")
            kept = times.add(times.of_unix(self._clock()), -KEEP_TRAFFIC_DAYS * times.DAY).date()
            db.execute("DELETE FROM traffic WHERE day < ?", (kept.isoformat(),))

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise OperatorError(f"cannot read the slots in {self.path}: {error}") from error

    @contextmanager
    def _writing(self, consequence: str) -> Iterator[sqlite3.Connection]:
        """One IMMEDIATE transaction; a failure rolls it back and says what did not happen in `consequence`.

        Not `database.transaction`: that one counts what a job leaves open between two units, while these are opened
        by background threads at any moment.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise OperatorError(
                    f"cannot write the slots in {self.path}: {error}; {consequence}. "
                    "Check that the disk has room and the file is writable."
                ) from error
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")


def _day(seconds: float) -> str:
    return times.of_unix(seconds).date().isoformat()


def _alive(lease: sqlite3.Row) -> bool:
    return is_running(lease["pid"], lease["pid_started"], lease["boot"])
