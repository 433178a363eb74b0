"""Lists brought up to date against lists computed plainly; the difference of two matrices."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tickwork.contract.database import connect, transaction
from tickwork.generation.matrix import Matrix, difference
from tickwork.publish.neighbour_lists import NOBODY, TABLES, Block, NeighbourLists, merge

LONGEST = 4
ENTRIES = st.dictionaries(st.integers(1, 20), st.integers(-3, 3), max_size=16)
"""Scores by id: few scores, so that many are equal."""


def best(entries: dict[int, int]) -> list[tuple[int, int]]:
    return sorted(entries.items(), key=lambda entry: (-entry[1], entry[0]))


def block_of(lists: list[dict[int, int]]) -> Block:
    """The lists of what is given, the first list that of item 100."""
    ids, scores = np.full((len(lists), LONGEST), NOBODY, np.int64), np.full((len(lists), LONGEST), -np.inf)
    floors, floor_ids = np.full(len(lists), -np.inf), np.full(len(lists), NOBODY, np.int64)
    for row, entries in enumerate(lists):
        for column, (identifier, score) in enumerate(best(entries)[:LONGEST]):
            ids[row, column], scores[row, column] = identifier, score
        if len(entries) > LONGEST:
            floors[row], floor_ids[row] = scores[row, -1], ids[row, -1]
    return Block(100 + np.arange(len(lists)), ids, scores, floors, floor_ids)


def entries_of(block: Block, row: int) -> list[tuple[int, float]]:
    here = block.ids[row] != NOBODY
    return list(zip(block.ids[row][here].tolist(), block.scores[row][here].tolist(), strict=True))


@given(
    st.lists(ENTRIES, min_size=1, max_size=4), st.sets(st.integers(1, 20)), st.lists(ENTRIES, min_size=4, max_size=4)
)
def test_a_merged_list_is_the_best_of_what_is_there_down_to_its_floor(
    lists: list[dict[int, int]], removed: set[int], arriving: list[dict[int, int]]
) -> None:
    before = block_of(lists)
    added = [{key: score for key, score in new.items() if key not in old or key in removed}
             for old, new in zip(lists, arriving, strict=False)]  # fmt: skip
    triples = [(row, key, score) for row, new in enumerate(added) for key, score in new.items()]
    at, ids, scores = (np.array(column, kind) for column, kind in zip(
        zip(*triples, strict=True) if triples else ([], [], []), (np.int64, np.int64, float), strict=True))  # fmt: skip
    merged = merge(before, np.array(sorted(removed), np.int64), at, ids, scores)
    for row, (old, new) in enumerate(zip(lists, added, strict=True)):
        truth = best({key: score for key, score in old.items() if key not in removed} | new)
        found = entries_of(merged, row)
        assert found == truth[: len(found)], "an entry is missing, or out of order"
        floor = (-merged.floor_scores[row], merged.floor_ids[row])
        missing = truth[len(found) :]
        assert all((-score, key) >= floor for key, score in missing), "what is missing is above the floor"
        complete = merged.floor_scores[row] == -np.inf
        assert not (complete and missing)
        assert (row in merged.short(3)) == (len(found) < 3 and not complete)


@given(st.lists(st.tuples(ENTRIES, ENTRIES), min_size=1, max_size=5))
def test_stored_lists_and_their_published_rows_are_those_saved_last(pairs: list[tuple[dict, dict]]) -> None:
    with closing(connect(Path(":memory:"))) as connection:
        for table in TABLES:
            connection.execute(table)
        stored = NeighbourLists(connection, 2, LONGEST)
        before, after = block_of([old for old, _ in pairs]), block_of([new for _, new in pairs])
        with transaction(connection, "lists"):
            stored.save(before)
        with transaction(connection, "lists"):
            stored.save(after, stored.after(0, 100))
        read = stored.after(0, 100)
        for name in ("sources", "ids", "scores", "floor_scores", "floor_ids"):
            assert np.array_equal(getattr(read, name), getattr(after, name)), name
        rows = [tuple(row) for row in connection.execute("SELECT * FROM similar ORDER BY source, rank")]
        assert rows == [
            (100 + row, rank, identifier, score)
            for row in range(len(pairs))
            for rank, (identifier, score) in enumerate(entries_of(after, row)[:2], start=1)
        ]


MATRICES = st.dictionaries(st.integers(1, 30), st.sampled_from([0.0, -0.0, 1.0, 2.0]), max_size=20)


def matrix_of(content: dict[int, float]) -> Matrix:
    ids = np.array(sorted(content), np.int64)
    return Matrix(ids, np.array([[content[key], 0.5] for key in ids.tolist()], np.float16).reshape(len(ids), 2))


@given(MATRICES, MATRICES)
def test_what_is_removed_and_added_leads_from_one_matrix_to_the_other(old: dict, new: dict) -> None:
    found = difference(matrix_of(old), matrix_of(new))
    same = {key for key in old.keys() & new.keys() if repr(old[key]) == repr(new[key])}
    assert set(found.removed.tolist()) == old.keys() - same
    assert set(matrix_of(new).ids[found.added].tolist()) == new.keys() - same
