"""The tick board: the state of every job, gathered from markers, ledger, holds and schedule. Read-only."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tickwork.contract import times
from tickwork.contract.jobs import Job, own_lock
from tickwork.contract.ledger import Ledger, PassRow
from tickwork.contract.markers import Markers
from tickwork.contract.outcomes import Outcome
from tickwork.contract.paths import Paths
from tickwork.deployment import Deployment
from tickwork.upstream.slots import Hold, Slots

_FAILED = (Outcome.CRASHED.value, Outcome.KILLED.value)
RATE_PASSES = 12
"""Passes looked back at to estimate how fast a backlog goes down."""


@dataclass(frozen=True, slots=True)
class Row:
    """One job on the board; times are UTC. `state` is one of the words of `_state`."""

    job: str
    state: str
    reason: str
    since: dt.datetime | None
    last_outcome: str | None
    last_success: dt.datetime | None
    backlog: int | None
    eta: dt.datetime | None
    hold_until: dt.datetime | None
    lock: str
    next_tick: dt.datetime | None

    def as_dict(self) -> dict[str, object]:
        """The row as `status --json` gives it: times as ISO 8601 with a Z, None where nothing is known."""
        return {
            name: times.show(value) if isinstance(value, dt.datetime) else value
            for name, value in ((name, getattr(self, name)) for name in self.__slots__)
        }


def board(app: Deployment) -> list[Row]:
    """The rows of all jobs that are deployed or ever ran; without any, of all jobs there are."""
    now = times.now()
    with _ledger(app.paths) as ledger:
        known = app.jobs()
        seen = {*app.settings.jobs, *(ledger.jobs() if ledger else ()), *_folders(app.paths)}
        running = ledger.running() if ledger else []
        holds = {hold.host: hold for hold in current_holds(app.paths)}
        return [
            _row(known.get(name) or Job(name=name), app.paths, ledger, running, holds, now)
            for name in sorted(seen or known)
        ]


def current_holds(paths: Paths) -> list[Hold]:
    """The holds in force."""
    with slots(paths) as opened:
        return opened.holds() if opened else []


@contextmanager
def slots(paths: Paths, *, read_only: bool = True) -> Iterator[Slots | None]:
    """The slots database, or None when nothing was ever asked for."""
    path = paths.database("slots")
    if not path.exists():
        yield None
        return
    with Slots(path, read_only=read_only) as opened:
        yield opened


def _row(
    job: Job, paths: Paths, ledger: Ledger | None, running: list[PassRow], holds: dict[str, Hold], now: dt.datetime
) -> Row:
    markers = Markers(paths.job(job.name))
    last = ledger.last(job.name) if ledger else None
    good = ledger.last(job.name, success=True) if ledger else None
    current = next((row for row in running if row.job == job.name), None)
    hold = holds.get(last.host) if last else None
    state, reason, since = _state(job, markers, last, current, hold)
    newest = current or last
    backlog = newest.backlog if newest else None
    passes = ledger.recent(job.name, RATE_PASSES) if ledger and backlog and not markers.halted else []
    return Row(
        job=job.name,
        state=state,
        reason=reason,
        since=since,
        last_outcome=last.outcome if last else None,
        last_success=good.ended if good else None,
        backlog=backlog,
        eta=_eta(backlog, passes, now),
        hold_until=hold.until if hold else None,
        lock=_locks(job, paths, running),
        next_tick=next_tick(job, now) if not markers.halted and not markers.done else None,
    )


def _state(
    job: Job, markers: Markers, last: PassRow | None, current: PassRow | None, hold: Hold | None
) -> tuple[str, str, dt.datetime | None]:
    """The job's state in one word, why, and since when."""
    if markers.halted:
        return "halted", markers.halted_reason() or "the marker gives no reason", markers.since(".halted")
    if current:
        return "running", f"pid {current.pid}", current.started
    if markers.done:
        return "done", "drained", markers.since(".done")
    if hold:
        return "held", hold.why, hold.since
    failing = markers.failing_since()
    if failing and (last is None or last.ended is None or failing > last.ended or last.outcome in _FAILED):
        why = last.reason if last and last.outcome in _FAILED else "the pass did not start; see the log"
        count = markers.failures()
        return "failing", f"{count} failures in a row: {why}" if count > 1 else f"failed once: {why}", failing
    if last is None:
        return "never ran", "", None
    if skipped := markers.skips()[1]:
        return "waiting", f"lock busy at the last {f'{skipped} ticks' if skipped > 1 else 'tick'}", last.ended
    if job.schedule and not job.armed and job.wrapper:
        return "disarmed", last.reason, last.ended
    return "idle", last.reason, last.ended


def _eta(backlog: int | None, passes: list[PassRow], now: dt.datetime) -> dt.datetime | None:
    """When the backlog is drained at the pace of the last passes, the pauses between them included."""
    if not backlog or not passes:
        return None
    seconds = (now - passes[-1].started).total_seconds()
    items = sum(row.items for row in passes)
    if items == 0 or seconds <= 0:
        return None
    try:
        return now + dt.timedelta(seconds=backlog * seconds / items)
    except OverflowError:
        return None


def next_tick(job: Job, now: dt.datetime) -> dt.datetime | None:
    """When the schedule fires next, if the job is armed and has one."""
    if not job.armed or not job.schedule or job.scheduler == "manual":
        return None
    from cronsim import CronSim, CronSimError

    try:
        # Cron and timers fire by the machine's local time.
        return next(CronSim(job.schedule, now.astimezone())).astimezone(dt.UTC)
    except (CronSimError, StopIteration):
        return None


def _locks(job: Job, paths: Paths, running: list[PassRow]) -> str:
    """Who holds the job's locks: the pass in the ledger, or a process that keeps no ledger; empty when free.

    Looked up, never tried: taking a lock to look at it would make a real tick skip.
    """
    for name in (*job.locks, own_lock(job.name)):
        for row in running:
            if name in row.locks.split():
                return f"{name}: {row.job} (pid {row.pid})"
        if _is_locked(paths.lock(name)):
            return f"{name}: held"
    return ""


def _is_locked(path: Path) -> bool:
    try:
        found = path.stat()
        table = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return False
    key = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    return any(key in line.split() and "FLOCK" in line.split() and "->" not in line for line in table.splitlines())


@contextmanager
def _ledger(paths: Paths) -> Iterator[Ledger | None]:
    path = paths.database("ledger")
    if not path.exists():
        yield None
        return
    with Ledger(path, read_only=True) as ledger:
        yield ledger


def _folders(paths: Paths) -> list[str]:
    folder = paths.state / "jobs"
    return [entry.name for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
