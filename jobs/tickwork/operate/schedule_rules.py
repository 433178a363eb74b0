"""The rules for the jobs of one host among each other, and whether what they need is there.

The roles refuse a set of jobs that breaks a rule before they install anything; this looks at what is installed.
"""

from __future__ import annotations

import datetime as dt
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import pairwise

from cronsim import CronSim, CronSimError

from tickwork.contract.jobs import Job, own_lock, seconds
from tickwork.contract.paths import Paths

_BEGIN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_HORIZON = _BEGIN + dt.timedelta(days=31)
"""The ticks looked at are those of one long month, and at least two."""


def faults(jobs: Mapping[str, Job], paths: Paths) -> list[str]:
    """Every fault of the deployed `jobs` in a sentence that names its job; empty when all is well."""
    found: list[str] = []
    ticks: dict[str, list[dt.datetime]] = {}
    for job in jobs.values():
        try:
            ticks[job.name] = _ticks(job)
        except CronSimError as error:
            ticks[job.name] = []
            found.append(f"{job.name}: the schedule {job.schedule!r} cannot be read: {error}")
    for job in jobs.values():
        found += _of_itself(job, ticks[job.name])
        found += _among_others(job, jobs, ticks)
        found += _missing(job, paths)
    return found


def _ticks(job: Job) -> list[dt.datetime]:
    if not job.schedule:
        return []
    ticks: list[dt.datetime] = []
    for tick in CronSim(job.schedule, _BEGIN):
        if tick > _HORIZON and len(ticks) >= 2:
            break
        ticks.append(tick)
    return ticks


def _of_itself(job: Job, ticks: list[dt.datetime]) -> Iterator[str]:
    if job.continues:
        yield from _of_one_that_continues(job)
    interval = min((after - before for before, after in pairwise(ticks)), default=None)
    if interval is not None and _longest(job) >= interval and not job.continues:
        yield (
            f"{job.name} may run {seconds(job.timeout)} s and {seconds(job.kill_after)} s more until it is killed, "
            f"but ticks every {interval.total_seconds():.0f} s"
        )
    if job.drains and seconds(job.lock_wait):
        yield f"{job.name} drains, so it comes back at the next tick and must not wait {job.lock_wait} for its locks"
    if job.armed and not job.schedule:
        yield f"{job.name} is armed and has no schedule"


def _of_one_that_continues(job: Job) -> Iterator[str]:
    """It is the chain of its passes that continues: each of them ends by itself, and the next tick begins another."""
    if job.drains:
        yield f"{job.name} continues, so it never drains: declare one of the two"
    if seconds(job.lock_wait):
        yield f"{job.name} continues, so it comes back at the next tick and must not wait {job.lock_wait} for its locks"
    bound = job.command[job.command.index("--seconds") + 1 :][:1] if "--seconds" in job.command else ()
    if not bound or not bound[0].isdecimal() or int(bound[0]) >= seconds(job.timeout):
        yield f"{job.name} continues, so its command needs --seconds, and fewer than its timeout of {job.timeout}"


def _among_others(job: Job, jobs: Mapping[str, Job], ticks: Mapping[str, list[dt.datetime]]) -> Iterator[str]:
    """Whether the job ever gets its locks from the others that share them."""
    others = [
        other
        for other in jobs.values()
        if other.name != job.name and other.schedule and set(other.locks) & set(job.locks)
    ]
    wait = seconds(job.lock_wait)
    if wait:
        ahead = sum((_longest(other) for other in others), dt.timedelta())
        if others and dt.timedelta(seconds=wait) <= ahead:
            yield (
                f"{job.name} waits {wait} s for its locks, but {' and '.join(other.name for other in others)} may hold "
                f"them for {ahead.total_seconds():.0f} s in turn: its lock_wait must be longer than that"
            )
        return
    within = [tick for tick in ticks[job.name] if tick <= _HORIZON]
    if within and others and not any(_is_free(tick, others, ticks) for tick in within):
        yield (
            f"{job.name} does not wait for its locks, and at each of its ticks "
            f"{' or '.join(other.name for other in others)} may hold them: give it a lock_wait or another schedule"
        )


def _is_free(tick: dt.datetime, others: list[Job], ticks: Mapping[str, list[dt.datetime]]) -> bool:
    """Whether no other job can be running at `tick`: none began within its own longest run before."""
    for other in others:
        since = bisect_right(ticks[other.name], tick - _longest(other))
        if since < bisect_right(ticks[other.name], tick):
            return False
    return True


def _longest(job: Job) -> dt.timedelta:
    return dt.timedelta(seconds=seconds(job.timeout) + seconds(job.kill_after))


def _missing(job: Job, paths: Paths) -> Iterator[str]:
    """What the job needs on this machine and is not there."""
    if not job.wrapper:
        return
    if not os.access(job.wrapper, os.X_OK):
        yield f"{job.name}: its wrapper {job.wrapper} is not there or cannot be run; deploy again"
    if not os.access(paths.job(job.name), os.W_OK):
        yield f"{job.name}: its state folder {paths.job(job.name)} is not there or not writable; deploy again"
    for lock in (*job.locks, own_lock(job.name)):
        if not os.access(paths.lock(lock), os.R_OK):
            yield f"{job.name}: its lock {paths.lock(lock)} is not there or not readable; deploy again"
