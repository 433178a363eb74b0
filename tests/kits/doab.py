"""What the tests of the DOAB jobs share: a deployment in a folder, how to run it, and what it holds."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.kits.deployment import Deployment, Said
from tests.kits.nursery import Nursery
from tests.kits.patience import until
from tests.upstreams.books import Book
from tests.upstreams.oai import FakeOai
from tests.upstreams.oai_records import utc_stamp

CONTACT = "https://example.org/contact"
DRAINED, MORE, HALTED = 0, 3, 4
HARVEST_ALL = ("harvest", "--from", "2000-01-01", "--limit", "1000000")
# What a record is about; the other columns tell when this machine heard of it.
_OUR_OWN = {"id", "first_seen", "last_changed"}
Row = dict[str, Any]


class Clock:
    """The fake server's clock: stands still until it is moved."""

    def __init__(self, now: dt.datetime = dt.datetime(2026, 10, 5, 12, 0, 0, tzinfo=dt.UTC)) -> None:
        self.now = now

    def __call__(self) -> dt.datetime:
        return self.now

    def move(self, **by: float) -> dt.datetime:
        """Move on by `by` (arguments of a timedelta); gives the new time."""
        self.now += dt.timedelta(**by)
        return self.now


class DoabNursery(Nursery):
    """Commands of DOAB's jobs."""

    prepare = (
        "import sqlite_utils, tickwork.sources.doab.commands, tickwork.store.migrations, tickwork.upstream.http.session"
    )


class Site(Deployment):
    """One deployment below `home` that speaks to one server; `doab` are keys of the `[doab]` table."""

    def __init__(self, home: Path, oai: FakeOai, **doab: Any) -> None:
        super().__init__(home)
        self.oai = oai
        self.doab: dict[str, Any] = {
            "base_url": oai.base_url,
            "interval_seconds": 0.0,
            "jitter": 0.0,
            "snapshot_days": 100000,
        }
        self.set(**doab)

    def set(self, **doab: Any) -> None:
        """Change keys of the `[doab]` table."""
        self.doab |= doab
        lines = [f'contact = "{CONTACT}"', 'allow_private = ["127.0.0.0/8"]', "[doab]"]
        lines += [f"{name} = {json.dumps(value)}" for name, value in self.doab.items()]
        self.config.write_text("\n".join(lines) + "\n")

    # Running.

    def command(self, *arguments: str) -> list[str]:
        """The arguments of the console command; `harvest`, `backfill`... stand for `doab harvest`..."""
        own = arguments[0] in ("rearm", "status", "explain", "holds", "manners", "run", "logs")
        return super().command(*(() if own else ("doab",)), *arguments)

    def passes(self, *arguments: str) -> list[int]:
        """Run a command until it ends otherwise than with "more work"; gives the exit codes."""
        codes: list[int] = []
        until(lambda: codes.append(self.run(*arguments).code) or codes[-1] != MORE, f"{arguments} came to no end")
        return codes

    def by_units(self, units: int, *arguments: str) -> Said:
        """Run a command in this process that is stopped after so many units, whatever its own bounds are."""
        from tickwork.contract import runner

        spend = runner.Budget.spend
        patch = pytest.MonkeyPatch()
        patch.setattr(runner.Budget, "spend", lambda budget, unit: spend(budget, replace(unit, items=1)))
        patch.setattr(runner.Budget, "remaining", property(lambda budget: max(0, units - budget.spent_items)))
        try:
            return self.run(*arguments)
        finally:
            patch.undo()

    # What came of it.

    @contextlib.contextmanager
    def db(self, name: str = "doab") -> Iterator[sqlite3.Connection]:
        """A database of the deployment; what was changed is committed."""
        connection = sqlite3.connect(self.state / "db" / f"{name}.db", timeout=30)
        connection.row_factory = sqlite3.Row
        try:
            with connection:
                yield connection
        finally:
            connection.close()

    def canonical(self) -> list[Row]:
        """All that is stored and does not depend on this machine, by identifier."""
        if not (self.state / "db" / "doab.db").exists():
            return []
        with self.db() as db:
            rows = db.execute("SELECT * FROM records ORDER BY identifier").fetchall()
        return [{name: row[name] for name in row.keys() if name not in _OUR_OWN} for row in rows]  # noqa: SIM118

    def stamps(self) -> dict[str, tuple[str, bool]]:
        """Datestamp and deletion of each record stored."""
        return {row["identifier"]: (row["datestamp"], bool(row["deleted"])) for row in self.canonical()}

    def live(self) -> set[str]:
        """Identifiers of the records stored and not deleted."""
        return {identifier for identifier, (_, deleted) in self.stamps().items() if not deleted}

    def cursor(self) -> str:
        """The harvest's cursor, empty when there is none."""
        with self.db() as db:
            row = db.execute("SELECT value FROM facts WHERE name LIKE 'harvest cursor of %'").fetchone()
        return row[0] if row else ""

    def worklist(self) -> dict[str, str]:
        """State by identifier, in the order of the worklist."""
        with self.db() as db:
            return dict(db.execute("SELECT identifier, state FROM worklist ORDER BY position").fetchall())

    def ripen(self) -> None:
        """Make every retry due now, as waiting would."""
        with self.db() as db:
            db.execute("UPDATE worklist SET next_attempt = '' WHERE state = 'retry'")

    def marker(self, job: str, name: str = ".halted") -> str:
        """The text of a marker, empty when it is not there."""
        path = self.state / "jobs" / job / name
        return path.read_text().strip() if path.exists() else ""

    def snapshot(self, which: str = "active") -> Path:
        """Where our own crawls leave their identifiers."""
        return self.state / "snapshots" / f"doab.{which}"

    def listed(self, identifiers: list[str]) -> str:
        """A bare list of these identifiers, in a file."""
        path = self.home / "ids"
        path.write_text("".join(f"{identifier}\n" for identifier in identifiers))
        return str(path)

    def holds(self) -> list[str]:
        """Hosts on hold."""
        with self.db("slots") as db:
            return [row[0] for row in db.execute("SELECT host FROM hosts WHERE hold_until > ?", (time.time(),))]

    def lift_holds(self) -> None:
        """Lift all holds, as waiting would."""
        with self.db("slots") as db:
            db.execute("UPDATE hosts SET hold_until = NULL, strikes = 0")

    def fingerprint(self) -> dict[str, str]:
        """Every file below the state folder with the digest of its bytes.

        Not what SQLite leaves beside a database that was opened, if only for reading: an empty log and its index.
        """
        return {
            str(path.relative_to(self.state)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.state.rglob("*"))
            if path.is_file() and not path.name.endswith(".db-shm")
            if path.stat().st_size or not path.name.endswith(".db-wal")
        }


def stored_by(oai: FakeOai) -> dict[str, tuple[str, bool]]:
    """Datestamp and deletion of each record the server has: what a complete harvest must store."""
    granularity = oai._protocol.granularity
    return {book.identifier: (utc_stamp(book.datestamp, granularity), book.deleted) for book in oai.records.books()}


def active_in(books: list[Book]) -> list[str]:
    """Identifiers of the books that are not deleted, newest first."""
    live = [book for book in books if not book.deleted]
    return [book.identifier for book in sorted(live, key=lambda book: -int(book.handle.rpartition("/")[2]))]


def well_mannered(oai: FakeOai) -> None:
    """Assert what the server saw: nobody twice at once, nobody inside a hold, everybody with a name and an address."""
    history = oai.history
    assert not history.overlaps()
    assert not history.inside_holds()
    assert not history.without_user_agent()
    assert all(CONTACT in seen.headers["User-Agent"] for seen in history)


def real_data() -> Path:
    """The folder of DOAB's real files; skips the test where there is none."""
    folder = os.environ.get("TICKWORK_REAL_DATA", "")
    if not folder:
        pytest.skip("TICKWORK_REAL_DATA unset")
    return Path(folder) / "doab"
