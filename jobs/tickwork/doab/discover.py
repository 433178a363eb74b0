"""Discovery: one crawl of all identifiers, into snapshots that tell what is active and what is deleted upstream."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tickwork.contract.outcomes import Halt, OperatorError
from tickwork.contract.units import Unit
from tickwork.doab import dates, snapshots
from tickwork.doab.answers import Identity
from tickwork.doab.crawl import Plan, crawl
from tickwork.doab.crawl_state import CrawlState
from tickwork.doab.oai import OaiClient
from tickwork.doab.settings import DoabSettings
from tickwork.doab.store import DoabStore

VERB = "ListIdentifiers"


@dataclass(frozen=True, slots=True)
class SnapshotFiles:
    """The two files of a snapshot."""

    active: Path
    deleted: Path

    @classmethod
    def under(cls, folder: Path) -> SnapshotFiles:
        """Where our own crawls leave them."""
        return cls(folder / "doab.active", folder / "doab.deleted")

    def older_than(self, days: float) -> bool:
        """Whether the snapshot is missing or older than `days`, by the time it was crawled."""
        if not self.active.exists() or not self.deleted.exists():
            return True
        crawled = snapshots.read(self.active).crawled
        return not crawled or dt.datetime.now(dt.UTC) - dates.parse(crawled) > dt.timedelta(days=days)


def in_progress(store: DoabStore) -> bool:
    """Whether a crawl of identifiers was begun and not finished."""
    return bool(CrawlState(store.connection, VERB).origin())


def discover(
    store: DoabStore, oai: OaiClient, settings: DoabSettings, files: SnapshotFiles, warn: Callable[[str], None]
) -> Iterator[Unit]:
    """Go on with the crawl of all identifiers, or begin one; a unit is a page. At its end the snapshot is replaced.

    Raises Halt when much less is active than in the snapshot before: a list that shrinks is more often a fault of the
    server's than the truth. The files then stay as they were, and the new ones lie beside them as `*.suspect`.
    """

    def everything(identity: Identity) -> tuple[str, str]:
        day = identity.day_granularity
        return identity.earliest, dates.shown(dates.parse(identity.response_date), day=day)

    origin = f"{oai.base_url} {settings.prefix} {settings.set}"
    plan = Plan(
        VERB,
        origin,
        everything,
        settings.window_items,
        settings.miscount_rate,
        closing=True,
        overlap_days=settings.overlap_days,
    )
    yield from crawl(store, oai, plan, lambda records: None, warn)
    state = CrawlState(store.connection, VERB)
    active, deleted = list(state.seen(deleted=False)), list(state.seen(deleted=True))
    shrunk = _shrunk(files, len(active), settings, warn)
    targets = files if not shrunk else SnapshotFiles(_suspect(files.active), _suspect(files.deleted))
    crawled = state.first_response()
    # The deleted first: whoever sees a new .active file finds the whole snapshot.
    snapshots.write(targets.deleted, deleted, settings.pattern(), source=oai.base_url, crawled=crawled)
    snapshots.write(targets.active, active, settings.pattern(), source=oai.base_url, crawled=crawled)
    with store.transaction():
        state.drop()
    if shrunk:
        raise Halt(shrunk)


def _shrunk(files: SnapshotFiles, active: int, settings: DoabSettings, warn: Callable[[str], None]) -> str:
    if not files.active.exists():
        return "" if active else "the crawl found no active record at all. Check base_url, prefix and set"
    try:
        before = len(snapshots.read(files.active).identifiers)
    except OperatorError as error:
        warn(f"the snapshot before cannot be compared with: {error}")
        return ""
    if before - active <= settings.shrink_rate * before:
        return ""
    return (
        f"the crawl found {active} active records where {before} were active before "
        f"(limit {settings.shrink_rate:.0%} fewer). If that is true, rename {_suspect(files.active)} and "
        f"{_suspect(files.deleted).name} over {files.active.name} and {files.deleted.name}, and re-arm"
    )


def _suspect(path: Path) -> Path:
    return path.with_name(path.name + ".suspect")
