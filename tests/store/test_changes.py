"""The feed of changes beside a table: what comes into it, in which order, and what a restored copy does to it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

import pytest

from tickwork.store import changes

Feed = Callable[[], list[int]]


@pytest.fixture
def db() -> sqlite3.Connection:
    """A table with two followed columns, one that is not, and three rows from before it was followed."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE books (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT, text TEXT, seen TEXT)")
    connection.executemany("INSERT INTO books (title) VALUES (?)", [("a",), ("b",), ("c",)])
    changes.follow(connection, "books", ["title", "text"])
    return connection


def ids(db: sqlite3.Connection, since: int = 0) -> list[int]:
    return [identifier for _, identifier in changes.after(db, "books", since, 100)]


def test_rows_from_before_the_feed_are_in_it_in_the_order_of_their_ids(db: sqlite3.Connection) -> None:
    assert ids(db) == [1, 2, 3]


@pytest.mark.parametrize(
    ("statement", "changed"),
    [
        ("INSERT INTO books (title) VALUES ('d')", [4]),
        ("INSERT INTO books (title) VALUES ('d'), ('e')", [4, 5]),
        ("UPDATE books SET title = 'z' WHERE id = 2", [2]),
        ("UPDATE books SET text = 'z', seen = 'now' WHERE id = 2", [2]),
        ("UPDATE books SET text = 'z'", [1, 2, 3]),
        ("DELETE FROM books WHERE id = 2", [2]),
        ("DELETE FROM books", [1, 2, 3]),
        ("INSERT INTO books (id, title) VALUES (2, 'z') ON CONFLICT (id) DO UPDATE SET title = 'z'", [2]),
        ("INSERT OR REPLACE INTO books (id, title) VALUES (2, 'z')", [2]),
        ("UPDATE books SET seen = 'now'", []),
        ("UPDATE books SET title = title", []),
        ("UPDATE books SET title = 'b', text = NULL WHERE id = 2", []),
        ("UPDATE books SET text = '' WHERE id = 2", [2]),
        ("INSERT INTO books (id, title) VALUES (2, 'b') ON CONFLICT (id) DO UPDATE SET title = excluded.title", []),
        ("UPDATE books SET title = 'z' WHERE id = 9", []),
    ],
)
def test_what_changes_a_followed_column_is_in_the_feed_and_nothing_else(
    db: sqlite3.Connection, statement: str, changed: list[int]
) -> None:
    before = changes.newest(db, "books")
    db.execute(statement)
    assert sorted(ids(db, before)) == changed


def test_insert_or_replace_must_never_meet_a_followed_table(db: sqlite3.Connection) -> None:
    """It gives the row another id and tells nobody that the old one is gone: its vector stays, and publishing halts."""
    db.execute("CREATE UNIQUE INDEX titles ON books (title)")
    before = changes.newest(db, "books")
    db.execute("INSERT OR REPLACE INTO books (title, text) VALUES ('b', 'new')")
    assert db.execute("SELECT id FROM books WHERE title = 'b'").fetchall() == [(4,)]
    assert ids(db, before) == [4], "the deletion of 2 is not in the feed"
    before = changes.newest(db, "books")
    db.execute(
        "INSERT INTO books (title, text) VALUES ('c', 'new') ON CONFLICT (title) DO UPDATE SET text = excluded.text"
    )
    assert ids(db, before) == [3], "an upsert keeps the id"


def test_rows_are_touched_as_if_they_had_changed(db: sqlite3.Connection) -> None:
    """For what changes a document from another table."""
    before = changes.newest(db, "books")
    db.execute("BEGIN")
    for statement in changes.touch_statements("books", "title IN ('c', 'a', 'nobody')"):
        db.execute(statement)
    db.execute("COMMIT")
    assert ids(db, before) == [1, 3]
    assert ids(db) == [2, 1, 3]
    before = changes.newest(db, "books")
    for statement in changes.touch_statements("books", "title = 'nobody'"):
        db.execute(statement)
    assert changes.newest(db, "books") == before


def test_a_feed_of_before_is_kept_and_tells_of_values_only_from_then_on(db: sqlite3.Connection) -> None:
    """Triggers as they once were: an update that names a followed column was in the feed whatever its value."""
    db.execute("DROP TRIGGER books_changes_updated")
    db.execute(
        "CREATE TRIGGER books_changes_updated AFTER UPDATE OF title, text ON books BEGIN"
        " DELETE FROM books_changes WHERE id = new.id;"
        " INSERT INTO books_changes (id) SELECT new.id; END"
    )
    before = changes.newest(db, "books")
    db.execute("UPDATE books SET title = title WHERE id = 1")
    assert ids(db, before) == [1]
    known = changes.seqs(db, "books")
    changes.follow_values(db, "books", ["title", "text"])
    assert changes.seqs(db, "books") == known
    before = changes.newest(db, "books")
    db.execute("UPDATE books SET title = title")
    assert ids(db, before) == []
    db.execute("UPDATE books SET title = 'z' WHERE id = 2")
    assert ids(db, before) == [2]


def test_many_changes_of_a_row_are_one_at_its_last(db: sqlite3.Connection) -> None:
    before = changes.newest(db, "books")
    for text in "xyz":
        db.execute("UPDATE books SET text = ? WHERE id = 1", (text,))
        db.execute("UPDATE books SET text = ? WHERE id = 3", (text,))
    assert ids(db, before) == [1, 3]
    assert ids(db) == [2, 1, 3]


def test_a_row_that_is_gone_stays_in_the_feed(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM books WHERE id = 1")
    assert ids(db) == [2, 3, 1]


def test_what_is_rolled_back_is_not_in_the_feed(db: sqlite3.Connection) -> None:
    before = changes.newest(db, "books")
    db.execute("BEGIN")
    db.execute("UPDATE books SET title = 'z'")
    db.execute("ROLLBACK")
    assert changes.newest(db, "books") == before
    assert ids(db) == [1, 2, 3]


def test_a_number_is_never_given_twice(db: sqlite3.Connection) -> None:
    """Also not that of the newest change when its row changes again, within the same millisecond."""
    given = [changes.newest(db, "books")]
    for n in range(200):
        db.execute("UPDATE books SET text = ? WHERE id = 2", (n,))
        given.append(changes.newest(db, "books"))
    assert given == sorted(set(given))


def test_numbers_are_times_so_that_two_histories_never_share_one(db: sqlite3.Connection) -> None:
    copy = sqlite3.connect(":memory:", isolation_level=None)
    db.backup(copy)
    db.execute("UPDATE books SET title = 'lost' WHERE id = 2")
    lost = changes.newest(db, "books")
    assert abs(lost - time.time() * 1e6) < 60e6
    until = time.time_ns() + 5_000_000
    while time.time_ns() < until:  # a copy is not restored within the millisecond
        pass
    copy.execute("UPDATE books SET title = 'other' WHERE id = 3")
    assert changes.newest(copy, "books") > lost
    assert not changes.has(copy, "books", lost)
    assert changes.has(db, "books", lost)


def test_a_change_is_known_until_its_row_changes_again(db: sqlite3.Connection) -> None:
    db.execute("UPDATE books SET title = 'z' WHERE id = 2")
    seq = changes.newest(db, "books")
    assert changes.has(db, "books", seq)
    db.execute("UPDATE books SET title = 'y' WHERE id = 1")
    assert changes.has(db, "books", seq)
    db.execute("UPDATE books SET title = 'y' WHERE id = 2")
    assert not changes.has(db, "books", seq)
    assert changes.has(db, "books", 0), "the beginning is in every history"


def test_the_feed_is_read_in_parts_that_follow_each_other(db: sqlite3.Connection) -> None:
    db.executemany("INSERT INTO books (title) VALUES (?)", [(str(n),) for n in range(20)])
    read, seq = [], 0
    while part := changes.after(db, "books", seq, 4):
        assert len(part) <= 4
        seq = part[-1][0]
        read += [identifier for _, identifier in part]
    assert read == list(range(1, 24))
    assert seq == changes.newest(db, "books")
    assert changes.seqs(db, "books")[23] == seq


def test_an_empty_table_has_an_empty_feed() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE books (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT)")
    changes.follow(connection, "books", ["title"])
    assert changes.newest(connection, "books") == 0
    assert changes.after(connection, "books", 0, 10) == []
