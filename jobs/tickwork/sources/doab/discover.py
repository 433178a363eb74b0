"""Discovery: one crawl of all identifiers, into snapshots that tell what is active and what is deleted upstream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from tickwork.contract import times
from tickwork.contract.outcomes import Halt, OperatorError
from tickwork.contract.units import Unit
from tickwork.sources.doab import dates, identifier_lists
from tickwork.sources.doab.crawl import Plan, crawl
from tickwork.sources.doab.crawl_state import CrawlState, Origin
from tickwork.sources.doab.oai import OaiClient
from tickwork.sources.doab.response import Identity
from tickwork.sources.doab.settings import DoabSettings
from tickwork.sources.doab.store import DoabStore

VERB = "ListIdentifiers"


@dataclass(frozen=True, slots=True)
class IdentifierFiles:
    """The two files of a snapshot."""

    active: Path
    deleted: Path

    @classmethod
    def under(cls, folder: Path) -> IdentifierFiles:
        """Where our own crawls leave them."""
        return cls(folder / "doab.active", folder / "doab.deleted")

    def older_than(self, days: float, settings: DoabSettings) -> bool:
        """Whether the snapshot is missing, of another repository, or older than `days` by the time it was crawled."""
        if not self.active.exists() or not self.deleted.exists():
            return True
        snapshot = identifier_lists.read(self.active)
        crawled = snapshot.crawled
        if snapshot.source != source(settings) or not crawled:
            return True
        return times.now() > times.add(dates.parse(crawled), days * times.DAY)


def source(settings: DoabSettings) -> str:
    """What a snapshot says it is of: server, prefix and set, in one word."""
    return f"{settings.base_url}?{urlencode({'metadataPrefix': settings.prefix, 'set': settings.set})}"


def in_progress(store: DoabStore) -> bool:
    """Whether a crawl of identifiers was begun and not finished."""
    return CrawlState(store.connection, VERB).origin() is not None


def discover(
    store: DoabStore, oai: OaiClient, settings: DoabSettings, files: IdentifierFiles, warn: Callable[[str], None]
) -> Iterator[Unit]:
    """Go on with the crawl of all identifiers, or begin one; a unit is a page. At its end the snapshot is replaced.

    Raises Halt when much less is active than in the snapshot before: a list that shrinks is more often a fault of the
    server's than the truth. The files then stay as they were, and the new ones lie beside them as `*.suspect`.
    """

    def everything(identity: Identity) -> tuple[str, str]:
        first, last = (
            dates.shown(dates.parse(stamp), day=identity.day_granularity)
            for stamp in (identity.earliest, identity.response_date)
        )
        return first, last

    origin = Origin(base_url=oai.base_url, prefix=settings.prefix, set=settings.set)
    plan = Plan(
        VERB,
        origin,
        everything,
        settings.window_items,
        settings.miscount_share,
        closing=True,
        overlap_days=settings.overlap_days,
    )
    yield from crawl(store, oai, plan, lambda records: None, warn)
    state = CrawlState(store.connection, VERB)
    active, deleted = list(state.seen(deleted=False)), list(state.seen(deleted=True))
    shrunk = _shrunk(files, len(active), settings, warn)
    targets = files if not shrunk else IdentifierFiles(_suspect(files.active), _suspect(files.deleted))
    crawled = state.first_response()
    # The deleted first: whoever sees a new .active file finds the whole snapshot.
    identifier_lists.write(targets.deleted, deleted, settings.pattern(), source=source(settings), crawled=crawled)
    identifier_lists.write(targets.active, active, settings.pattern(), source=source(settings), crawled=crawled)
    with store.transaction():
        state.drop()
    if shrunk:
        raise Halt(shrunk)


def _shrunk(files: IdentifierFiles, active: int, settings: DoabSettings, warn: Callable[[str], None]) -> str:
    if not files.active.exists():
        return "" if active else "the crawl found no active records. Check base_url, prefix and set"
    try:
        snapshot = identifier_lists.read(files.active)
    except OperatorError as error:
        warn(f"cannot compare with the previous snapshot: {error}")
        return ""
    before = len(snapshot.identifiers) if snapshot.source == source(settings) else 0
    if before - active <= settings.shrink_share * before:
        return ""
    return (
        f"the crawl found {active} active records where {before} were active before "
        f"(limit {settings.shrink_share:.0%} fewer). If that is true, rename {_suspect(files.active)} and "
        f"{_suspect(files.deleted).name} over {files.active.name} and {files.deleted.name}, and re-arm"
    )


def _suspect(path: Path) -> Path:
    return path.with_name(path.name + ".suspect")
