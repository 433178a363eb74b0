"""Lists brought up to date against lists computed plainly; the difference of two matrices; files whole or not there."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork.contract import files
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


# Files.


def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is made to last from now on, and what is renamed, in order."""
    happened: list[str] = []
    fsync, rename = os.fsync, os.rename

    def sync(descriptor: int) -> None:
        happened.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def renamed(old: Path, new: Path) -> None:
        happened.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", renamed)
    return happened


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_is_before_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened = synced(monkeypatch)
    with files.whole(tmp_path / "a") as partial:
        partial.write_text("new")
        assert not (tmp_path / "a").exists()
    assert happened == ["a.partial", "rename", tmp_path.name]
    assert (tmp_path / "a").read_text() == "new"


def test_a_file_that_is_replaced_is_the_old_one_until_it_is_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with files.whole(tmp_path / "a") as partial:
        partial.write_text("new")
        assert (tmp_path / "a").read_text() == "old"
    assert (tmp_path / "a").read_text() == "new"


@pytest.mark.parametrize("broken", ["the writing", "fsync", "rename"])
def test_a_file_that_fails_leaves_the_old_one_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    (tmp_path / "a").write_text("old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if broken != "the writing":
        monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="No space"), files.whole(tmp_path / "a") as partial:  # noqa: PT012
        partial.write_text("new")
        if broken == "the writing":
            fail()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_what_a_killed_writer_left_is_not_taken_up(tmp_path: Path) -> None:
    (tmp_path / "a.partial").write_text("half of it, and much longer than the new content")
    with files.whole(tmp_path / "a") as partial, partial.open("a") as file:
        file.write("new")
    assert (tmp_path / "a").read_text() == "new"


def no_kernel_copy(*_: object) -> int:
    raise OSError(errno.EXDEV, "Invalid cross-device link")


def in_small_steps(read: int, write: int, count: int) -> int:
    return os.write(write, os.read(read, min(count, 1000)))


def only_the_beginning(read: int, write: int, count: int) -> int:
    return in_small_steps(read, write, count) if os.lseek(read, 0, os.SEEK_CUR) < 3000 else 0


@pytest.mark.parametrize("kernel", [os.copy_file_range, no_kernel_copy, in_small_steps, only_the_beginning])
@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_a_copy_is_whole_however_much_the_kernel_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: Callable[..., int], size: int
) -> None:
    (tmp_path / "a").write_bytes(content := os.urandom(size))
    (tmp_path / "b").write_bytes(b"x" * 200_000)
    monkeypatch.setattr(os, "copy_file_range", kernel)
    files.copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == content


def test_a_copy_onto_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a").write_bytes(b"x" * 100)
    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(OSError, match="No space"):
        files.copy(tmp_path / "a", tmp_path / "b")


def test_a_database_in_the_kernel_copied_is_the_same_database(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a")) as db, db:
        db.execute("CREATE TABLE t AS SELECT 1 AS x")
    files.copy(tmp_path / "a", tmp_path / "b")
    assert files.digest(tmp_path / "a") == files.digest(tmp_path / "b")
