"""The nightly harvest: every record that changed since the last complete one, as far back as a rolling window."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence

from tickwork.contract.outcomes import Halt
from tickwork.contract.units import Unit
from tickwork.doab import dates
from tickwork.doab.answers import Identity, Record
from tickwork.doab.crawl import Plan, crawl
from tickwork.doab.crawl_state import CrawlState
from tickwork.doab.oai import OaiClient
from tickwork.doab.reconcile import too_many
from tickwork.doab.settings import DoabSettings
from tickwork.doab.store import DoabStore

VERB = "ListRecords"
CURSOR = "harvest cursor of {base_url} {prefix} {set}"


def harvest(
    store: DoabStore,
    oai: OaiClient,
    settings: DoabSettings,
    warn: Callable[[str], None],
    *,
    first: str = "",
    last: str = "",
    allow_deletes: int = 0,
) -> Iterator[Unit]:
    """Go on with the harvest that was begun, or begin one; a unit is a page of records.

    Without `first` a harvest begins at the cursor, and at least `window_days` back. `until` is the server's clock at
    the beginning, so that the list does not grow while it is read. The cursor moves to the server's clock at the
    first answer less `overlap_days`, and only after a complete list that left no gap behind it. An interrupted
    harvest goes on at the next pass; one with other bounds replaces it.

    Raises Halt when a pass would turn more live records into tombstones than `mass_delete_rate` of them, and more
    than `allow_deletes`.
    """
    state = CrawlState(store.connection, VERB)
    asked = " ".join((oai.base_url, settings.prefix, settings.set, first, last))
    # Without bounds of its own, a pass goes on with whatever was interrupted on this server.
    running = state.origin()
    origin = running if running.split(" ")[:3] == asked.split(" ")[:3] and not first and not last else asked
    cursor_name = CURSOR.format(base_url=oai.base_url, prefix=settings.prefix, set=settings.set)
    cursor = store.fact(cursor_name)

    def bounds(identity: Identity) -> tuple[str, str]:
        day = identity.day_granularity
        until = dates.end_of(last, day=day) if last else dates.shown(dates.parse(identity.response_date), day=day)
        return dates.shown(_begin(first, cursor, identity, settings), day=day), until

    plan = Plan(VERB, origin, bounds, settings.window_items, settings.miscount_rate)
    guard = DeleteGuard(store, settings, allow_deletes)
    yield from crawl(store, oai, plan, guard.save, warn)
    with store.transaction():
        if _moves_cursor(origin, store.fact(cursor_name)):
            moved = dates.parse(state.first_response()) - dt.timedelta(days=settings.overlap_days)
            store.remember(cursor_name, dates.shown(moved, day=False))
        state.drop()


def _begin(first: str, cursor: str, identity: Identity, settings: DoabSettings) -> dt.datetime:
    if first:
        return dates.parse(first, "--from")
    rolling = dates.parse(identity.response_date) - dt.timedelta(days=settings.window_days)
    return min(rolling, dates.parse(cursor)) if cursor else rolling


def _moves_cursor(origin: str, cursor: str) -> bool:
    """Whether a complete harvest of this origin covers everything from the cursor until now."""
    first, last = origin.split(" ")[3:5]
    return not last and (not first or not cursor or dates.parse(first) <= dates.parse(cursor))


class DeleteGuard:
    """Saves pages, and refuses the one with which a pass would delete too much: a server's fault may look like that."""

    def __init__(self, store: DoabStore, settings: DoabSettings, allow_deletes: int) -> None:
        self._store, self._settings, self._allowed = store, settings, allow_deletes
        self._live = store.counts()[0]
        self._deleted = 0

    def save(self, records: Sequence[Record]) -> None:
        """Store a page inside a transaction; raises Halt, with the figures, instead."""
        self._deleted += sum(record.deleted and self._store.is_live(record.identifier) for record in records)
        if too_many(self._deleted, self._live, self._settings, self._allowed):
            raise Halt(
                f"the server says of {self._deleted} of {self._live} records that they are deleted "
                f"(limit {self._settings.mass_delete_rate:.0%}). If that is right, re-arm, then: "
                f"tickwork doab harvest --allow-deletes N"
            )
        self._store.save(records)
