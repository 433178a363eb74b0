"""The ledger: one row a pass, opened at its start, and the audit of what operators did.

A row that is open while its process is gone belongs to a pass that was killed; the next pass, of any job, closes it.
"""

from __future__ import annotations

import datetime as dt
import os
import pwd
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tickwork.contract import database, processes, times
from tickwork.contract.outcomes import OperatorError, Outcome

_SCHEMA = """
CREATE TABLE IF NOT EXISTS passes (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  job TEXT NOT NULL, locks TEXT NOT NULL, host TEXT NOT NULL,
  pid INTEGER NOT NULL, pid_started INTEGER NOT NULL, boot TEXT NOT NULL,
  started TEXT NOT NULL, ended TEXT, bounds TEXT NOT NULL,
  outcome TEXT, units INTEGER NOT NULL DEFAULT 0, items INTEGER NOT NULL DEFAULT 0, size INTEGER NOT NULL DEFAULT 0,
  success INTEGER NOT NULL DEFAULT 0, backlog INTEGER, reason TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS passes_by_job ON passes (job, id);
CREATE INDEX IF NOT EXISTS passes_open ON passes (id) WHERE ended IS NULL;
CREATE TABLE IF NOT EXISTS audit (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at TEXT NOT NULL, who TEXT NOT NULL, job TEXT NOT NULL, action TEXT NOT NULL, why TEXT NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class PassRow:
    """One pass as the ledger has it; `ended` and `outcome` are None while it is open."""

    id: int
    job: str
    locks: str
    host: str
    pid: int
    started: dt.datetime
    ended: dt.datetime | None
    outcome: str | None
    units: int
    items: int
    backlog: int | None
    reason: str


class Ledger:
    """The ledger of one state folder. Use as a context manager."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        self._connection = database.connect(path, read_only=read_only)
        try:
            if not read_only:
                self._connection.executescript(_SCHEMA)
            elif not self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'audit'").fetchone():
                # Whoever made it was killed at once, or is about to go on: to a reader it is an empty one.
                self._connection.close()
                self._connection = database.connect(Path(":memory:"))
                self._connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            self._connection.close()
            raise OperatorError(f"cannot {'read' if read_only else 'write'} the ledger {path}: {error}") from error

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.close()

    def open_pass(self, job: str, locks: str, host: str, bounds: str) -> int:
        """Close what killed passes left open, then open a row for this process; gives its id."""
        with self._writing() as connection:
            for row in connection.execute(
                "SELECT id, pid, pid_started, boot FROM passes WHERE ended IS NULL"
            ).fetchall():
                if not processes.is_running(row["pid"], row["pid_started"], row["boot"]):
                    connection.execute(
                        "UPDATE passes SET ended = ?, outcome = ?, reason = 'the process was gone' WHERE id = ?",
                        (_now(), Outcome.KILLED.value, row["id"]),
                    )
            cursor = connection.execute(
                "INSERT INTO passes (job, locks, host, pid, pid_started, boot, started, bounds)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    job,
                    locks,
                    host,
                    os.getpid(),
                    processes.started_at(os.getpid()),
                    processes.boot_id(),
                    _now(),
                    bounds,
                ),
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def update_pass(self, row: int, *, units: int, items: int, size: int, backlog: int | None) -> None:
        """Bring the figures of the open row `row` up to date; it stays open, and no success."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE passes SET units = ?, items = ?, size = ?, backlog = ? WHERE id = ? AND ended IS NULL",
                (units, items, size, backlog, row),
            )

    def close_pass(
        self,
        row: int,
        outcome: Outcome,
        *,
        units: int,
        items: int,
        size: int,
        backlog: int | None,
        reason: str,
        success: bool = False,
    ) -> None:
        """Close the row `row` with its figures; `success` is a pass that drained or got something done."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE passes SET ended = ?, outcome = ?, units = ?, items = ?, size = ?, backlog = ?, reason = ?,"
                " success = ? WHERE id = ? AND ended IS NULL",
                (_now(), outcome.value, units, items, size, backlog, reason, success, row),
            )

    def record(self, job: str, action: str, why: str) -> None:
        """Note in the audit that the current user did `action` to `job`, and why."""
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO audit (at, who, job, action, why) VALUES (?, ?, ?, ?, ?)",
                (_now(), operator(), job, action, why),
            )

    def last(self, job: str, *, success: bool = False) -> PassRow | None:
        """The newest closed pass of `job`, or the newest that was a success."""
        row = self._connection.execute(
            "SELECT * FROM passes WHERE job = ? AND ended IS NOT NULL AND success >= ? ORDER BY id DESC LIMIT 1",
            (job, success),
        ).fetchone()
        return _pass(row) if row else None

    def running(self) -> list[PassRow]:
        """The open passes whose process still runs."""
        rows = self._connection.execute("SELECT * FROM passes WHERE ended IS NULL ORDER BY id").fetchall()
        return [_pass(row) for row in rows if processes.is_running(row["pid"], row["pid_started"], row["boot"])]

    def recent(self, job: str, limit: int) -> list[PassRow]:
        """The newest `limit` passes of `job`, newest first."""
        rows = self._connection.execute("SELECT * FROM passes WHERE job = ? ORDER BY id DESC LIMIT ?", (job, limit))
        return [_pass(row) for row in rows]

    def jobs(self) -> list[str]:
        """Names of the jobs that ever had a pass."""
        return [row["job"] for row in self._connection.execute("SELECT DISTINCT job FROM passes ORDER BY job")]

    def audit(self, job: str, limit: int = 20) -> list[sqlite3.Row]:
        """The newest operator actions on `job`: at, who, action, why."""
        query = "SELECT at, who, action, why FROM audit WHERE job = ? ORDER BY id DESC LIMIT ?"
        return self._connection.execute(query, (job, limit)).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction; raises OperatorError when it cannot be written."""
        try:
            with database.transaction(self._connection, "ledger") as connection:
                yield connection
        except sqlite3.Error as error:
            raise OperatorError(f"cannot write the ledger {self._path}: {error}") from error


def operator() -> str:
    """Login name of whoever is at the keyboard, also behind sudo."""
    try:
        return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _now() -> str:
    return times.now().isoformat(timespec="milliseconds")


def _pass(row: sqlite3.Row) -> PassRow:
    return PassRow(
        id=row["id"],
        job=row["job"],
        locks=row["locks"],
        host=row["host"],
        pid=row["pid"],
        started=times.parse(row["started"]),
        ended=times.parse(row["ended"]) if row["ended"] else None,
        outcome=row["outcome"],
        units=row["units"],
        items=row["items"],
        backlog=row["backlog"],
        reason=row["reason"],
    )
