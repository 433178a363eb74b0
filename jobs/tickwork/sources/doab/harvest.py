"""The nightly harvest: every record that changed since the last complete one, as far back as a rolling window."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator, Sequence

from tickwork.contract import times
from tickwork.contract.outcomes import Halt
from tickwork.contract.units import Unit
from tickwork.sources.doab import dates
from tickwork.sources.doab.crawl import Plan, crawl
from tickwork.sources.doab.crawl_state import CrawlState, Origin
from tickwork.sources.doab.oai import OaiClient
from tickwork.sources.doab.reconcile import too_many
from tickwork.sources.doab.response import Identity, Record
from tickwork.sources.doab.settings import DoabSettings
from tickwork.sources.doab.store import DoabStore

VERB = "ListRecords"


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

    Deletions of live records are stored at the end, all at once. Raises Halt instead, and stores none of them, when
    they are more than `mass_delete_share` of the live records and more than `allow_deletes`.
    """
    state = CrawlState(store.connection, VERB)
    asked = Origin(base_url=oai.base_url, prefix=settings.prefix, set=settings.set, first=first, last=last)
    # Without bounds of its own, a pass goes on with whatever was interrupted on this server.
    running = state.origin()
    origin = running if running and running.of_same_list(asked) and not first and not last else asked
    cursor_name = cursor_of(asked)
    cursor = store.fact(cursor_name)

    def bounds(identity: Identity) -> tuple[str, str]:
        day = identity.day_granularity
        until = dates.end_of(last, day=day) if last else dates.shown(dates.parse(identity.response_date), day=day)
        return dates.shown(_begin(first, cursor, identity, settings), day=day), until

    def save(records: Sequence[Record]) -> None:
        # A deletion of what is live takes its metadata away: it waits until the whole list can be judged.
        store.save(record for record in records if not record.deleted or not store.is_live(record.identifier))

    plan = Plan(VERB, origin, bounds, settings.window_items, settings.miscount_share)
    yield from crawl(store, oai, plan, save, warn)
    deletions = _deletions(store, state)
    if alarm := _too_many(len(deletions), store, settings, allow_deletes):
        with store.transaction():
            state.drop()  # whoever re-arms wants the server asked again
        raise Halt(alarm)
    with store.transaction():
        store.save(deletions)
        if _moves_cursor(origin, store.fact(cursor_name)):
            moved = times.add(dates.parse(state.first_response()), -settings.overlap_days * times.DAY)
            store.remember(cursor_name, dates.shown(moved, day=False))
        state.drop()


def cursor_of(origin: Origin) -> str:
    """The name of the fact that is the cursor of a list, whatever dates are asked of it."""
    return f"harvest cursor of {json.dumps([origin.base_url, origin.prefix, origin.set], ensure_ascii=False)}"


def _begin(first: str, cursor: str, identity: Identity, settings: DoabSettings) -> dt.datetime:
    if first:
        return dates.parse(first, "--from")
    rolling = times.add(dates.parse(identity.response_date), -settings.window_days * times.DAY)
    return min(rolling, dates.parse(cursor)) if cursor else rolling


def _moves_cursor(origin: Origin, cursor: str) -> bool:
    """Whether a complete harvest of this origin covers everything from the cursor until now."""
    return not origin.last and (not origin.first or not cursor or dates.parse(origin.first) <= dates.parse(cursor))


def _deletions(store: DoabStore, state: CrawlState) -> list[Record]:
    """The tombstones that the complete list has for records that are live here and not newer."""
    live = store.live()
    return [
        Record(identifier, stamp, deleted=True)
        for identifier, stamp in state.seen(deleted=True)
        if identifier in live and stamp >= live[identifier]
    ]


def _too_many(deletions: int, store: DoabStore, settings: DoabSettings, allowed: int) -> str:
    """Why so many deletions are not believed, with the figures: a server's fault may look like that. Or empty."""
    live = store.counts()[0]
    if not too_many(deletions, live, settings, allowed):
        return ""
    return (
        f"the server says of {deletions} of {live} records that they are deleted "
        f"(limit {settings.mass_delete_share:.0%}). If that is right, re-arm and run, with the same dates: "
        f"tickwork doab harvest --allow-deletes {deletions}"
    )
