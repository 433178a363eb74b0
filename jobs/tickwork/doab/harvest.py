"""The nightly harvest: every record that changed since the last complete one, as far back as a rolling window."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator

from tickwork.contract.outcomes import OperatorError
from tickwork.contract.units import Unit
from tickwork.doab import dates
from tickwork.doab.answers import Identity
from tickwork.doab.crawl import Plan, crawl
from tickwork.doab.crawl_state import CrawlState
from tickwork.doab.oai import OaiClient
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
) -> Iterator[Unit]:
    """Go on with the harvest that was begun, or begin one; a unit is a page of records.

    Without `first` a harvest begins at the cursor, and at least `window_days` back. `until` is the server's clock at
    the beginning, so that the list does not grow while it is read. The cursor moves to the server's clock at the
    first answer less `overlap_days`, and only after a complete list that left no gap behind it. An interrupted
    harvest goes on at the next pass; one with other bounds replaces it.
    """
    if first and last and dates.parse(first, "--from") > dates.parse(last, "--until"):
        raise OperatorError(f"--from {first} is later than --until {last}")
    state = CrawlState(store.connection, VERB)
    asked = " ".join((oai.base_url, settings.prefix, settings.set, first, last))
    # Without bounds of its own, a pass goes on with whatever was interrupted on this server.
    running = state.origin()
    origin = running if running.startswith(f"{oai.base_url} ") and not first and not last else asked
    cursor_name = CURSOR.format(base_url=oai.base_url, prefix=settings.prefix, set=settings.set)
    cursor = store.fact(cursor_name)

    def bounds(identity: Identity) -> tuple[str, str]:
        day = identity.day_granularity
        until = dates.end_of(last, day=day) if last else dates.shown(dates.parse(identity.response_date), day=day)
        return dates.shown(_begin(first, cursor, identity, settings), day=day), until

    plan = Plan(VERB, origin, bounds, settings.window_items, settings.miscount_rate)
    yield from crawl(store, oai, plan, store.save, warn)
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
