"""Reading a whole list of a repository, window by window, so that it may be stopped or killed anywhere.

A list is divided into windows of datestamps; a finished window is final, so an expired resumption token costs one
window and never the crawl. A window is finished only when the server ended its list by itself, without a token used
twice, without a page repeated, without the list changing its length meanwhile, and with as many identifiers as the
server said there were (or with the same smaller number twice, within the share that is taken for a miscount).
Everything else starts the window again, a bounded number of times, and then a human must look.

Source of the rules: OAI-PMH 2.0, sections 2.5 and 3.5 (flow control, datestamps), and the guidelines for harvesters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tickwork.contract import times
from tickwork.contract.outcomes import Halt
from tickwork.contract.units import Unit
from tickwork.sources.doab import dates
from tickwork.sources.doab.crawl_state import CrawlState, Origin, Window
from tickwork.sources.doab.errors import OaiError
from tickwork.sources.doab.oai import OaiClient
from tickwork.sources.doab.response import Identity, Page, Record
from tickwork.sources.doab.store import DoabStore

MAX_RESTARTS = 3
MAX_EMPTY_PAGES = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """What to list: the verb, the bounds as the operator gave them, and how large a window may be.

    `closing` adds a last window over what changed meanwhile, and over the `overlap_days` before, because repositories
    index late.
    """

    verb: str
    origin: Origin
    bounds: Callable[[Identity], tuple[str, str]]
    window_items: int
    miscount_share: float
    closing: bool = False
    overlap_days: int = 0


def crawl(
    store: DoabStore,
    oai: OaiClient,
    plan: Plan,
    save: Callable[[Sequence[Record]], None],
    warn: Callable[[str], None],
) -> Iterator[Unit]:
    """Go on with the crawl of `plan`, or begin it; each unit is a page, saved with the progress it makes.

    Exhausted when every window is finished; what was seen is then in the store's crawl state, for the caller to use
    and drop. Raises Held, Transient, Halt.
    """
    state = CrawlState(store.connection, plan.verb)
    if state.origin() != plan.origin:
        try:
            identity = oai.identify()
        except OaiError as error:
            raise Halt(f"{oai.base_url} answered Identify with {error}. Check base_url") from error
        first, last = plan.bounds(identity)
        with store.transaction():
            state.begin(plan.origin, identity.response_date, [(first, last)] if first <= last else [])
    while True:
        while window := state.next_window():
            yield from _read(store, oai, plan, state, window, save, warn)
        if not plan.closing or state.closing():
            return
        with store.transaction():
            state.add_closing(plan.overlap_days)


def _read(
    store: DoabStore,
    oai: OaiClient,
    plan: Plan,
    state: CrawlState,
    window: Window,
    save: Callable[[Sequence[Record]], None],
    warn: Callable[[str], None],
) -> Iterator[Unit]:
    """Ask for the window's next page and commit what it brings: one unit."""
    if window.token and _expired(window.expires):
        yield _again(store, state, window, "its resumption token expired", warn, divide=True)
        return
    try:
        page, size = oai.page(plan.verb, window.first, window.last, window.token)
    except OaiError as error:
        yield _refused(store, oai, plan, state, window, error, warn)
        return
    if page.cleaned:
        warn(f"illegal characters removed from the list {window.first} to {window.last}")
    if page.broken:
        warn(f"records skipped for lack of an identifier or datestamp: {page.broken}, {window.first} to {window.last}")
    if plan.verb == "ListRecords":
        _tell_of_hollow(page, warn)
    if trouble := _trouble(state, window, page):
        yield _again(store, state, window, trouble, warn)
        return
    again = ""
    with store.transaction():
        save(page.records)
        state.saw(window, page)
        if page.token is None:
            again, warning = _verdict(plan, state, window, page)
            if not again:
                state.finish(window)
        elif halves := _too_long(plan, window, page):
            state.divide(window, halves)
    if again:
        _again(store, state, window, again, warn)
    elif page.token is None and warning:
        warn(f"{window.first} to {window.last}: {warning}")
    yield Unit(items=len(page.records), size=size, note=f"{window.first[:10]} to {window.last[:10]}")


def _refused(
    store: DoabStore,
    oai: OaiClient,
    plan: Plan,
    state: CrawlState,
    window: Window,
    error: OaiError,
    warn: Callable[[str], None],
) -> Unit:
    """What an `<error>` instead of a page means for the window."""
    if error.code == "noRecordsMatch" and not window.token:
        with store.transaction():
            state.finish(window)
        return Unit(items=0, note="nothing in this window")
    if error.code == "noRecordsMatch":
        return _again(store, state, window, "the list ended before its resumption token did", warn)
    if error.code == "badResumptionToken" and window.token:
        return _again(store, state, window, "the server no longer knows its resumption token", warn, divide=True)
    raise Halt(f"{oai.base_url} answered {plan.verb} with {error}. Check prefix, set and dates") from error


def _tell_of_hollow(page: Page, warn: Callable[[str], None]) -> None:
    hollow = [record.identifier for record in page.records if not record.deleted and record.metadata is None]
    if hollow:
        warn(f"live records skipped for lack of metadata: {len(hollow)}, the first is {hollow[0]}")


def _too_long(plan: Plan, window: Window, page: Page) -> tuple[tuple[str, str], tuple[str, str]] | None:
    """The halves of a window whose first page announces more than a window should list."""
    if window.pages == 0 and page.size is not None and page.size > plan.window_items:
        return dates.halves(window.first, window.last)
    return None


def _trouble(state: CrawlState, window: Window, page: Page) -> str:
    """Why this page cannot belong to a list in good order, or an empty string."""
    if not page.records and not page.broken and page.token is None and window.pages == 0:
        return "the server sent an empty list instead of saying that nothing matches"
    if page.token and (page.token.value == window.token or state.used(window, page.token.value)):
        return "the server gave a resumption token twice"
    if page.records and window.pages and state.knows_all(window, page.records):
        return "the server repeated a page"
    if page.token and not page.records and window.empty_pages >= MAX_EMPTY_PAGES:
        return f"the server sent more than {MAX_EMPTY_PAGES} empty pages in a row"
    return ""


def _verdict(plan: Plan, state: CrawlState, window: Window, page: Page) -> tuple[str, str]:
    """At the end of the window's list: why it must be read again, if it must; and else what to warn of, if anything."""
    listed, told, shifted, previous = state.figures(window)
    if shifted:
        return f"the length of the list changed while it was read ({listed} listed)", ""
    if told is None and window.pages and not page.ended and previous != listed:
        return f"it stopped after {listed} without a final resumption token", ""
    if told is None or listed == told:
        return "", ""
    figures = f"{listed} identifiers, but the server counts {told}"
    tolerated = told - listed <= max(1.0, plan.miscount_share * told)
    if listed > told or (previous == listed and tolerated):
        return "", f"the list has {figures}; the server miscounts"
    return f"it ended with {figures}", ""


def _again(
    store: DoabStore,
    state: CrawlState,
    window: Window,
    why: str,
    warn: Callable[[str], None],
    *,
    divide: bool = False,
) -> Unit:
    """Start the window again, in two halves where that helps. Raises Halt when it was read often enough.

    The state is then as new: whoever re-arms the job wants it to try.
    """
    halves = dates.halves(window.first, window.last) if divide else None
    exhausted = not halves and window.restarts >= MAX_RESTARTS
    with store.transaction():
        if halves:
            state.divide(window, halves)
        else:
            state.restart(window, afresh=exhausted)
    if exhausted:
        raise Halt(
            f"the list {window.first} to {window.last} was read {MAX_RESTARTS + 1} times and never in full: {why}"
        )
    warn(f"the list {window.first} to {window.last} is read again: {why}")
    return Unit(items=0, note="reading a window again")


def _expired(expires: str) -> bool:
    return bool(expires) and times.parse(expires) <= times.now()
