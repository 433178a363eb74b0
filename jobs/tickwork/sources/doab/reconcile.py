"""Reconciling what is stored with what a snapshot says is active and deleted upstream; no request is sent.

A repository whose deletions are transient forgets them, so a harvest alone never hears of some.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from tickwork.contract.outcomes import Halt, OperatorError
from tickwork.contract.units import Unit
from tickwork.sources.doab.identifier_lists import IdentifierList
from tickwork.sources.doab.response import Record
from tickwork.sources.doab.settings import DoabSettings
from tickwork.sources.doab.store import DoabStore

BATCH = 500
FEW = 10
"""So many deletions are a few, whatever share of a small store they are."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How store and snapshot differ, each sorted.

    `missing`: active upstream and not live here. `stale`: live here and deleted upstream, with the deletion's
    datestamp. `orphan`: live here and unknown upstream.
    """

    missing: list[str]
    stale: list[tuple[str, str]]
    orphan: list[str]


def difference(live: dict[str, str], active: IdentifierList, deleted: IdentifierList) -> Difference:
    """Compare `live` (datestamp by identifier) with the snapshot. Raises OperatorError for one that contradicts itself.

    A record that changed here after its deletion in the snapshot is not stale: it was restored since.
    """
    if both := active.identifiers.keys() & deleted.identifiers.keys():
        raise OperatorError(f"identifiers both active and deleted: {len(both)}, the first is {min(both)}. Crawl again")
    stale = []
    for identifier in sorted(live.keys() & deleted.identifiers.keys()):
        stamp = deleted.identifiers[identifier] or live[identifier]
        if stamp >= live[identifier]:
            stale.append((identifier, stamp))
    known = active.identifiers.keys() | deleted.identifiers.keys()
    return Difference(sorted(active.identifiers.keys() - live.keys()), stale, sorted(live.keys() - known))


def too_many(deletions: int, live: int, settings: DoabSettings, allowed: int) -> bool:
    """Whether so many deletions out of `live` records need a human's word, `allowed`."""
    return deletions > max(FEW, allowed, settings.mass_delete_share * live)


def reconcile(
    store: DoabStore, active: IdentifierList, deleted: IdentifierList, settings: DoabSettings, allow_deletes: int
) -> Iterator[Unit]:
    """Turn what is stale into tombstones; a unit is a batch.

    Raises Halt, with the figures, for more than `mass_delete_share` of the live records and more than `allow_deletes`.
    """
    live = store.live()
    stale = difference(live, active, deleted).stale
    if too_many(len(stale), len(live), settings, allow_deletes):
        raise Halt(
            f"{len(stale)} of {len(live)} records would go (limit {settings.mass_delete_share:.0%}). If that is "
            f"right, re-arm, then: tickwork doab reconcile --allow-deletes {len(stale)}"
        )
    rest = iter(stale)
    while batch := list(islice(rest, BATCH)):
        with store.transaction():
            store.save(Record(identifier, stamp, deleted=True) for identifier, stamp in batch)
        yield Unit(items=len(batch))
