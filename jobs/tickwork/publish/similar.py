"""The stage that finds the nearest items of every item: exactly, and from the base by what changed.

Of each item a list of up to 30 is kept where 20 are published, and its floor: the last entry it ever had, above which
nothing is missing from it. A new item above the floor of a list is entered, a deleted one taken out; a list that falls
short of what is published is found anew. The result is the same as that of finding all of them anew.
Prior work: Figueroa and Paredes, "An Effective Permutant Selection Heuristic for Proximity Searching" (reverse
nearest neighbours of a dynamic graph, 2009), without its approximations.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from tickwork.contract import database, files
from tickwork.contract.database import transaction
from tickwork.contract.units import Unit
from tickwork.generation.matrix import Difference, Ids, Matrix, difference
from tickwork.generation.meta import SIMILAR
from tickwork.publish.campaign_context import CampaignContext
from tickwork.publish.neighbour_lists import NOBODY, TABLES, Block, NeighbourLists, merge
from tickwork.vectors.exact_search import ExactSearch

FOUND, UPDATED = 2048, 16_384
"""Items in one unit, when their lists are found and when they are brought up to date."""
SPARE = 10
"""Entries kept of each list beyond those published."""
FULL_ABOVE = 0.25
"""With a larger share of changed vectors, finding all anew is less work."""
_NONE = np.zeros(0, np.int64)


def similar(context: CampaignContext) -> Iterator[Unit]:
    """Make the database of similar items; one unit is the lists of some thousand items."""
    final = context.folder / SIMILAR
    partial = final.with_name(final.name + ".partial")
    matrix = Matrix.load(context.folder)
    if not partial.exists():
        with files.whole(partial, lasts=False) as starting:
            _start(context, matrix, starting)
    with closing(database.connect(partial)) as connection:
        progress = _progress(connection)
        if progress:
            exact = ExactSearch(matrix.vectors, context.device)
            lists = NeighbourLists(connection, context.request.top_k, context.request.top_k + SPARE)
            new = matrix.ids
            if "old" in progress and context.base_matrix:
                changes = difference(context.base_matrix, matrix)
                new = matrix.ids[changes.added]
                yield from _update(lists, exact, matrix, changes, progress["old"])
            yield from _find(lists, exact, matrix, new[new > progress["new"]])
            with transaction(connection, "similar"):
                connection.execute("DROP TABLE progress")
        files.into_one(connection)
    files.settle(partial, final)
    yield Unit(items=0, note="similar")


def _progress(connection: sqlite3.Connection) -> dict[str, int]:
    """The ids up to which lists are brought up to date, and found; nothing when all is done."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'progress'").fetchone():
        return {}
    return dict(connection.execute("SELECT name, value FROM progress").fetchall())


def _start(context: CampaignContext, matrix: Matrix, starting: Path) -> None:
    """Begin with the base's lists where that is less work, with none otherwise."""
    changes = None
    fits = context.base and context.base.meta.top_k == context.request.top_k
    if fits and context.base_matrix and context.base_matrix.vectors.shape[1] == matrix.vectors.shape[1]:
        changes = difference(context.base_matrix, matrix)
        if len(changes.added) + len(changes.removed) > FULL_ABOVE * len(matrix.ids):
            changes = None
    before = context.of_base(SIMILAR) if changes else None
    if before:
        files.copy(before, starting)
    with closing(database.connect(starting)) as connection:
        with transaction(connection, "similar"):
            if before and changes:
                NeighbourLists(connection, context.request.top_k, context.request.top_k + SPARE).drop(changes.removed)
            else:
                for table in TABLES:
                    connection.execute(table)
            connection.execute("CREATE TABLE progress (name TEXT PRIMARY KEY, value INTEGER NOT NULL)")
            # Ids are positive.
            connection.executemany("INSERT INTO progress VALUES (?, 0)", [("new",), *([("old",)] if before else [])])
        files.into_one(connection)


def _update(
    lists: NeighbourLists, exact: ExactSearch, matrix: Matrix, changes: Difference, last: int
) -> Iterator[Unit]:
    """Bring the lists of the items that were there before up to date."""
    others = len(matrix.ids) - 1
    added = set(matrix.ids[changes.added].tolist())
    while len((before := lists.after(last, UPDATED)).sources):
        last = int(before.sources[-1])
        # A list found in this campaign is up to date; it is there when the campaign was interrupted after it.
        block = before.keep(np.array([source not in added for source in before.sources.tolist()], bool))
        if not len(block.sources):
            continue
        places = np.searchsorted(matrix.ids, block.sources)
        at, ids, scores = [_NONE], [_NONE], [_NONE.astype(np.float64)]
        for pairs in exact.above(changes.added, places, block.floor_scores):
            at.append(np.searchsorted(places, pairs.columns))
            ids.append(matrix.ids[pairs.rows])
            scores.append(pairs.scores)
        fresh = merge(block, changes.removed, np.concatenate(at), np.concatenate(ids), np.concatenate(scores))
        short = fresh.short(min(lists.shown, others))
        if len(short):
            fresh.put(short, _nearest(exact, matrix, fresh.sources[short], lists.longest))
        with transaction(lists.connection, "similar"):
            lists.save(fresh, block)
            lists.connection.execute("UPDATE progress SET value = ? WHERE name = 'old'", (last,))
        yield Unit(items=len(block.sources), note="similar: brought up to date")


def _find(lists: NeighbourLists, exact: ExactSearch, matrix: Matrix, sources: Ids) -> Iterator[Unit]:
    """Find the lists of `sources`, ascending ids, from nothing."""
    for start in range(0, len(sources), FOUND):
        some = sources[start : start + FOUND]
        block = _nearest(exact, matrix, some, lists.longest)
        with transaction(lists.connection, "similar"):
            lists.save(block)
            lists.connection.execute("UPDATE progress SET value = ? WHERE name = 'new'", (int(some[-1]),))
        yield Unit(items=len(some), note="similar: found")


def _nearest(exact: ExactSearch, matrix: Matrix, sources: Ids, longest: int) -> Block:
    places, scores = exact.nearest(np.searchsorted(matrix.ids, sources), longest)
    ids = np.where(places >= 0, matrix.ids[places], NOBODY)
    return Block.found(sources, ids, scores, len(matrix.ids) - 1)
