"""Running one bounded pass of a job: markers, locks, ledger row, budget, signals, exit code.

A job is a generator of committed units. The runner takes them one by one until the generator is exhausted (drained),
a bound is reached or a stop is requested (more), or the job raises how it ends.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tickwork.contract import locks, metrics, times
from tickwork.contract.database import open_transactions
from tickwork.contract.jobs import Job, own_lock
from tickwork.contract.ledger import Ledger
from tickwork.contract.markers import Markers
from tickwork.contract.outcomes import Busy, Interrupted, OperatorError, Outcome, PassEnd, missing_package
from tickwork.contract.paths import Paths
from tickwork.contract.progress import progress
from tickwork.contract.stop import Stop
from tickwork.contract.units import Budget, Unit

WRAPPED = "TICKWORK_WRAPPED"
"""Environment variable in which a wrapper names the job it runs; the wrapper then writes `.done` itself."""
HEARTBEAT_SECONDS = 10.0
"""At a unit, so long after the last time, what others see of a pass under way is brought up to date."""


@dataclass
class Pass:
    """What the runner gives a job for one pass: its bounds, its stop, and a place to say what it knows."""

    job: Job
    budget: Budget
    stop: Stop
    armed: dt.datetime
    """When the job was armed, or last re-armed (UTC): what happened before was judged by a human."""
    backlog: int | None = None
    """Items still to do, where the job knows; kept up to date by the job, shown to the operator."""
    locks: tuple[int, ...] = ()
    """Descriptors of the held locks: a child process that may outlive us must inherit them."""
    notes: list[str] = field(default_factory=list)
    progressed: bool = False
    """Whether a unit that is progress was committed."""

    def warn(self, message: str) -> None:
        """Tell the operator of something odd that does not stop the pass; one line in the log."""
        self.notes.append(message)
        _tell(f"{self.job.name}: warning: {message}")


Work = Callable[[Pass], Iterator[Unit]]


def run_pass(
    job: Job,
    work: Work,
    budget: Budget,
    paths: Paths,
    *,
    host: str = "",
    lock_wait: float = 0.0,
    take_locks: bool = True,
) -> Outcome:
    """Make one pass of `job` and say how it ended. `host` names the upstream it speaks to, if there is just one.

    Raises Busy when another run holds a lock, OperatorError when the pass cannot begin.
    """
    wrapped = os.environ.get(WRAPPED, "") == job.name
    markers = Markers(paths.job(job.name), makes_folder=paths.makes_locks)
    markers.ready()
    if refusal := _refusal(markers):
        return refusal
    stop = Stop()
    with contextlib.ExitStack() as held:
        held.enter_context(stop.on_signals())
        try:
            descriptors = _take(job, paths, held, lock_wait, stop) if take_locks else ()
        except Interrupted as end:
            _tell(f"{job.name}: {end} while waiting for a lock")
            return end.outcome
        markers.ready()
        if refusal := _refusal(markers):  # the pass that had the lock may have halted or drained the job
            return refusal
        ledger = held.enter_context(Ledger(paths.database("ledger")))
        one_pass = Pass(job, budget, stop, markers.armed(), locks=descriptors)
        row = ledger.open_pass(job.name, " ".join(job.locks), host, _bounds(budget))
        started = time.time()

        def beat(units: int) -> None:
            # What cannot be written costs the news of the pass, never the pass.
            with contextlib.suppress(OperatorError):
                ledger.update_pass(
                    row, units=units, items=budget.spent_items, size=budget.spent_size, backlog=one_pass.backlog
                )
            metrics.update_pass(paths.metrics_dir, job.name, items=budget.spent_items, backlog=one_pass.backlog)

        units, outcome, reason = _drive(one_pass, work, markers, beat)
        reason = reason.encode(errors="replace").decode()  # of an upstream's making, perhaps; the ledger wants UTF-8
        if outcome is Outcome.HALTED:
            # Before the row is closed and before exit 4: a wrapper that was killed could not write it any more.
            # Where it cannot be written, exit 4 still makes the wrapper try, and say so.
            _attempt(lambda: markers.halt(reason))
        elif outcome is Outcome.DRAINED and job.drains and not wrapped:
            _attempt(markers.finish)
        # A pass that was held, or met a fault before it got anything done, is no success, though it ended in order.
        success = outcome is Outcome.DRAINED or (outcome is Outcome.MORE and one_pass.progressed)
        ledger.close_pass(
            row,
            outcome,
            units=units,
            items=budget.spent_items,
            size=budget.spent_size,
            backlog=one_pass.backlog,
            reason=reason,
            success=success,
        )
        ended = time.time()
        metrics.write_pass(
            paths.metrics_dir,
            job.name,
            success=success,
            ended=ended,
            seconds=ended - started,
            items=budget.spent_items,
            backlog=one_pass.backlog,
        )
    line = _line(job, outcome, reason, budget, ended - started, one_pass.backlog)
    _tell(line)
    if not wrapped:  # a wrapper has our standard error go there
        _append(paths.log(job.name), line)
    return outcome


def _refusal(markers: Markers) -> Outcome | None:
    """What a marker says against running at all; whoever started the pass is told why.

    Also under a wrapper, which has looked before: a variable that outlived its wrapper must not open a halted job.
    """
    if markers.halted:
        why = markers.halted_reason() or "the marker gives no reason"
        _tell(f'{markers.job} is halted: {why}. Fix the cause, then run: tickwork rearm {markers.job} --why "..."')
        return Outcome.HALTED
    if markers.done:
        _tell(f'{markers.job} is done; to run it again: tickwork rearm {markers.job} --done --why "..."')
        return Outcome.DRAINED
    return None


def _attempt(write: Callable[[], None]) -> None:
    try:
        write()
    except OperatorError as error:
        _tell(str(error))


def _take(job: Job, paths: Paths, held: contextlib.ExitStack, lock_wait: float, stop: Stop) -> tuple[int, ...]:
    try:
        # Its own lock last: who finds a shared one busy need not look further.
        names = (*job.locks, own_lock(job.name))
        return held.enter_context(locks.holding(names, paths, wait=lock_wait, stop=stop))
    except Busy as busy:
        with Ledger(paths.database("ledger")) as ledger:
            others = [row for row in ledger.running() if row.job == job.name or set(row.locks.split()) & set(job.locks)]
        if not others:
            raise
        who = ", ".join(f"{row.job} (pid {row.pid}, since {row.started:%Y-%m-%dT%H:%M:%SZ})" for row in others)
        raise Busy(f"another run is active: {who}") from busy


def _drive(one_pass: Pass, work: Work, markers: Markers, beat: Callable[[int], None]) -> tuple[int, Outcome, str]:
    """Take units until the pass ends; gives their number, the outcome and its reason.

    `beat` is called now and then with the number of units so far.
    """
    units, budget = 0, one_pass.budget
    last_beat, moved = time.monotonic(), False
    try:
        with (
            progress(one_pass.job.name, budget) as show,
            contextlib.closing(_generator(work, one_pass)) as source,
        ):
            for unit in source:
                if unfinished := open_transactions():
                    raise RuntimeError(f"unit yielded inside a transaction of {', '.join(unfinished)}")
                units += 1
                budget.spend(unit)
                show(unit, one_pass.backlog)
                is_due = time.monotonic() - last_beat >= HEARTBEAT_SECONDS
                moved = moved or unit.progress
                if moved and (is_due or not one_pass.progressed):
                    markers.progressed()
                    one_pass.progressed, moved = True, False
                if is_due:
                    beat(units)
                    last_beat = time.monotonic()
                if one_pass.stop.requested:
                    return units, Outcome.MORE, one_pass.stop.reason
                if bound := budget.exhausted():
                    return units, Outcome.MORE, bound
        return units, Outcome.DRAINED, "; ".join(one_pass.notes)
    except PassEnd as end:
        return units, end.outcome, str(end)
    except OperatorError as error:
        if isinstance(error.__cause__, sqlite3.DatabaseError) and _is_damage(error.__cause__):
            return units, *_storage_fault(error.__cause__)
        return units, Outcome.CRASHED, str(error)
    except sqlite3.DatabaseError as error:
        return units, *_storage_fault(error)
    except OSError as error:
        return units, Outcome.CRASHED, f"the machine refused: {error}"
    except ModuleNotFoundError as error:
        if not (missing := missing_package(error)):
            traceback.print_exc()
        return units, Outcome.CRASHED, missing or str(error)
    except Exception as error:  # the ledger must tell of every crash; the traceback goes to the log
        traceback.print_exc()
        return units, Outcome.CRASHED, f"{type(error).__name__}: {error}"


def _generator(work: Work, one_pass: Pass) -> Generator[Unit]:
    yield from work(one_pass)


def _storage_fault(error: sqlite3.DatabaseError) -> tuple[Outcome, str]:
    """A damaged file is for a human; a full disk or a lock may be gone at the next tick, and counts as a failure."""
    if _is_damage(error):
        return Outcome.HALTED, f"the database is damaged: {error}. Restore it from a copy, then re-arm"
    if not isinstance(error, sqlite3.OperationalError):
        traceback.print_exception(error)
    return Outcome.CRASHED, f"database error: {error}"


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    # Python's own errors, such as that of a closed connection, have no code.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _bounds(budget: Budget) -> str:
    bounds = {"items": budget.items, "seconds": budget.seconds, "bytes": budget.size}
    return " ".join(f"{name}={value:g}" for name, value in bounds.items() if value is not None)


def _append(path: Path, line: str) -> None:
    """Add a line to a log; one that cannot be written costs the line, never the pass."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as log:
            log.write(line + "\n")


def _line(job: Job, outcome: Outcome, reason: str, budget: Budget, seconds: float, backlog: int | None) -> str:
    """The one line a pass leaves in the log, in logfmt."""
    words: Sequence[str] = [
        f"time={times.show(times.now())}",
        f"job={job.name}",
        f"pass={outcome.value}",
        f"items={budget.spent_items}",
        f"bytes={budget.spent_size}",
        f"seconds={seconds:.1f}",
        *([f"backlog={backlog}"] if backlog is not None else []),
        *([f'reason="{" ".join(reason.replace(chr(34), chr(39)).split())}"'] if reason else []),
    ]
    return " ".join(words)


def _tell(line: str) -> None:
    """Print to the log, or to whoever watches; a log that cannot be written costs the line, never the pass."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)
