"""Lists of nearest items: how they are stored, and how one is brought up to date by what came and what went."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
Chosen = npt.NDArray[np.bool_]

NOBODY = -1

TABLES = (
    # What may be missing from a list is below its floor; no floor: nothing is missing.
    """
    CREATE TABLE lists (
      source INTEGER PRIMARY KEY, ids BLOB NOT NULL, scores BLOB NOT NULL, floor_score REAL, floor_id INTEGER
    )""",
    # The key's columns first: otherwise SQLite 3.40 calls a whole file damaged.
    """
    CREATE TABLE similar (
      source INTEGER NOT NULL, rank INTEGER NOT NULL, similar INTEGER NOT NULL, score REAL NOT NULL,
      PRIMARY KEY (source, rank)
    ) WITHOUT ROWID""",
)


@dataclass(frozen=True, slots=True)
class Block:
    """The lists of some items, `sources` (n,), best entries first, ended by NOBODY and -inf.

    `ids` and `scores` are (n, longest); the floors (n,) are -inf where nothing is missing.
    """

    sources: Ids
    ids: Ids
    scores: Scores
    floor_scores: Scores
    floor_ids: Ids

    @classmethod
    def found(cls, sources: Ids, ids: Ids, scores: Scores, others: int) -> Block:
        """Lists just found, of the nearest among `others` items."""
        longest = ids.shape[1]
        floor_scores, floor_ids = np.full(len(sources), -np.inf), np.full(len(sources), NOBODY, np.int64)
        if others > longest:
            floor_scores, floor_ids = scores[:, -1].copy(), ids[:, -1].copy()
        return cls(sources, ids, scores, floor_scores, floor_ids)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """How many entries each list has, (n,)."""
        lengths: npt.NDArray[np.int64] = (self.ids != NOBODY).sum(axis=1)
        return lengths

    def short(self, wanted: int) -> npt.NDArray[np.int64]:
        """Places of the lists with fewer than `wanted` entries from which entries are missing."""
        return np.flatnonzero((self.lengths < wanted) & (self.floor_scores > -np.inf))

    def keep(self, chosen: Chosen) -> Block:
        """The lists for which `chosen`, (n,), is true."""
        return Block(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def put(self, places: Ids, other: Block) -> None:
        """Replace the lists at `places` by those of `other`."""
        for field in fields(self):
            getattr(self, field.name)[places] = getattr(other, field.name)


def merge(block: Block, removed: Ids, at: Ids, ids: Ids, scores: Scores) -> Block:
    """`block` without the items `removed`, with the entries (place in the block, id, score) that reach its floors."""
    above = (scores > block.floor_scores[at]) | ((scores == block.floor_scores[at]) & (ids < block.floor_ids[at]))
    gone = (block.ids != NOBODY) & np.isin(block.ids, removed)
    touched: Chosen = gone.any(axis=1)
    touched[at[above]] = True
    merged = block.keep(np.ones(len(block.sources), bool))
    if touched.any():
        places = np.flatnonzero(touched)
        before = block.keep(touched)
        before.ids[gone[places]], before.scores[gone[places]] = NOBODY, -np.inf
        merged.put(places, _merged(before, np.searchsorted(places, at[above]), ids[above], scores[above]))
    return merged


def _merged(block: Block, at: Ids, ids: Ids, scores: Scores) -> Block:
    """`block`, whose lists may have gaps, with the entries (place in the block, id, score) in their order."""
    longest = block.ids.shape[1]
    order = np.lexsort((ids, -scores, at))
    at, ids, scores = at[order], ids[order], scores[order]
    counts = np.bincount(at, minlength=len(block.sources))
    ranks = np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)
    # Of the new ones too no more than a list can have: one item may be near all that came.
    best = ranks < longest
    new_ids = np.full((len(block.sources), min(longest, counts.max())), NOBODY)
    new_scores = np.full(new_ids.shape, -np.inf)
    new_ids[at[best], ranks[best]], new_scores[at[best], ranks[best]] = ids[best], scores[best]
    all_ids = np.concatenate([block.ids, new_ids], axis=1)
    all_scores = np.concatenate([block.scores, new_scores], axis=1)
    order = np.lexsort((all_ids, -all_scores), axis=1)[:, :longest]
    all_ids, all_scores = np.take_along_axis(all_ids, order, axis=1), np.take_along_axis(all_scores, order, axis=1)
    cut = block.lengths + counts > longest
    return Block(
        block.sources,
        all_ids,
        all_scores,
        np.where(cut, all_scores[:, -1], block.floor_scores),
        np.where(cut, all_ids[:, -1], block.floor_ids),
    )


class NeighbourLists:
    """The stored lists: up to `longest` entries of each item, the first `shown` of them also as rows of `similar`."""

    def __init__(self, connection: sqlite3.Connection, shown: int, longest: int) -> None:
        self.connection = connection
        self.shown = shown
        self.longest = longest

    def after(self, last: int, limit: int) -> Block:
        """Up to `limit` lists of items with ids above `last`, in their order."""
        rows = self.connection.execute(
            "SELECT source, ids, scores, floor_score, floor_id FROM lists WHERE source > ? ORDER BY source LIMIT ?",
            (last, limit),
        ).fetchall()
        ids = np.full((len(rows), self.longest), NOBODY, np.int64)
        scores = np.full((len(rows), self.longest), -np.inf)
        lengths = np.array([len(row["ids"]) // 8 for row in rows], np.int64)
        inside = np.arange(self.longest) < lengths[:, None]
        ids[inside] = np.frombuffer(b"".join(row["ids"] for row in rows), np.int64)
        scores[inside] = np.frombuffer(b"".join(row["scores"] for row in rows), np.float64)
        return Block(
            np.array([row["source"] for row in rows], np.int64),
            ids,
            scores,
            np.array([-np.inf if row["floor_score"] is None else row["floor_score"] for row in rows], np.float64),
            np.array([NOBODY if row["floor_id"] is None else row["floor_id"] for row in rows], np.int64),
        )

    def save(self, block: Block, before: Block | None = None) -> None:
        """Store lists, inside a transaction; where they stood as `before`, only what is another now is written."""
        changed = np.ones(len(block.sources), bool)
        old_ids = np.full((len(block.sources), self.shown), NOBODY, np.int64)
        old_scores = np.full(old_ids.shape, -np.inf)
        if before is not None:
            changed = ((block.ids != before.ids) | (block.scores != before.scores)).any(axis=1)
            changed |= (block.floor_scores != before.floor_scores) | (block.floor_ids != before.floor_ids)
            old_ids, old_scores = before.ids[:, : self.shown], before.scores[:, : self.shown]
        lengths = block.lengths
        rows = []
        for place in np.flatnonzero(changed).tolist():
            length, floor = lengths[place], float(block.floor_scores[place])
            rows.append(
                (
                    int(block.sources[place]),
                    block.ids[place, :length].tobytes(),
                    block.scores[place, :length].tobytes(),
                    None if floor == -np.inf else floor,
                    None if floor == -np.inf else int(block.floor_ids[place]),
                )
            )
        self.connection.executemany("INSERT OR REPLACE INTO lists VALUES (?, ?, ?, ?, ?)", rows)
        ids, scores = block.ids[:, : self.shown], block.scores[:, : self.shown]
        at, rank = np.nonzero((ids != NOBODY) & ((ids != old_ids) | (scores != old_scores)))
        columns = (block.sources[at], ids[at, rank], scores[at, rank], rank + 1)
        entries = zip(*(column.tolist() for column in columns), strict=True)
        self.connection.executemany(
            "INSERT OR REPLACE INTO similar (source, similar, score, rank) VALUES (?, ?, ?, ?)", entries
        )
        at, rank = np.nonzero((ids == NOBODY) & (old_ids != NOBODY))
        gone = zip(block.sources[at].tolist(), (rank + 1).tolist(), strict=True)
        self.connection.executemany("DELETE FROM similar WHERE source = ? AND rank = ?", gone)

    def drop(self, sources: Ids) -> None:
        """Remove the lists of items, inside a transaction; entries that name them stay."""
        ids = [(identifier,) for identifier in sources.tolist()]
        self.connection.executemany("DELETE FROM lists WHERE source = ?", ids)
        self.connection.executemany("DELETE FROM similar WHERE source = ?", ids)
