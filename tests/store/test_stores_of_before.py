"""Databases that an earlier version wrote: they open, and what was begun in them goes on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tickwork.contract import database
from tickwork.sources.atproto.discover import List
from tickwork.sources.atproto.queue import Queue
from tickwork.sources.atproto.settings import AtprotoSettings
from tickwork.sources.atproto.store import AtprotoStore
from tickwork.sources.doab.crawl_state import CrawlState, Origin
from tickwork.sources.doab.harvest import cursor_of
from tickwork.sources.doab.store import DoabStore
from tickwork.store.base import Store
from tickwork.upstream.shards import Shard
from tickwork.vectors.store import VectorStore

DUMPS = Path(__file__).parents[1] / "fixtures" / "stores"
SERVER = "https://oai.example.org/request"
RELAY = "https://relay.example.org"
DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
EXTRA: dict[type[Store], tuple[object, ...]] = {DoabStore: (re.compile(".*"),)}


def of_before(path: Path, dump: str, *statements: tuple[str, tuple[object, ...]]) -> Path:
    """A database as it was of an earlier schema, with what `statements` put into it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript((DUMPS / dump).read_text())
        for statement, values in statements:
            connection.execute(statement, values)
    return path


def shape(connection: sqlite3.Connection) -> Iterator[tuple[str, str, list[tuple[object, ...]]]]:
    """Every table and index, with the columns."""
    query = "SELECT type, name FROM sqlite_master WHERE type IN ('table', 'index', 'trigger') ORDER BY type, name"
    for kind, name in connection.execute(query).fetchall():
        columns = connection.execute(f"PRAGMA table_info({name!r})").fetchall() if kind == "table" else []
        yield kind, name, [tuple(column) for column in columns]


@pytest.mark.parametrize(
    ("kind", "dump"),
    [(DoabStore, "doab-2.sql"), (AtprotoStore, "atproto-3.sql"), (VectorStore, "vectors-1.sql")],
)
def test_a_store_of_before_has_the_shape_of_a_new_one_once_it_was_opened(
    kind: type[Store], dump: str, tmp_path: Path
) -> None:
    more = EXTRA.get(kind, ())
    with (
        kind.open(of_before(tmp_path / "old.db", dump), *more) as old,
        kind.open(tmp_path / "new.db", *more) as new,
    ):
        assert list(shape(old.connection)) == list(shape(new.connection))
        with old.transaction():
            old.remember("a", "1")
        assert old.fact("a") == "1"


def opened_and_killed(kind: type[Store], path: Path, at: int) -> bool:
    """Open a store in a process that is killed before its statement number `at`; False if there were fewer."""
    pid = os.fork()
    if not pid:
        connect, left = database.connect, iter(range(at))

        def dying(sql: str) -> None:  # SQLite calls this before it executes a statement
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        def connected(*arguments: object, **options: object) -> sqlite3.Connection:
            connection = connect(*arguments, **options)
            connection.set_trace_callback(dying)
            return connection

        database.connect = connected
        try:
            with kind.open(path, *EXTRA.get(kind, ())):
                os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
    return status != 0


@pytest.mark.parametrize(("kind", "dump"), [(DoabStore, "doab-2.sql"), (AtprotoStore, "atproto-3.sql")])
def test_a_migration_killed_before_any_of_its_statements_is_made_by_the_next_to_open(
    kind: type[Store], dump: str, tmp_path: Path
) -> None:
    before = of_before(tmp_path / "before.db", dump)
    with kind.open(tmp_path / "new.db", *EXTRA.get(kind, ())) as new:
        wanted = list(shape(new.connection))
    at = 0
    path = tmp_path / "old.db"
    while True:
        for file in tmp_path.glob("old.db*"):
            file.unlink()
        shutil.copy(before, path)
        if not opened_and_killed(kind, path, at):
            break
        with kind.open(path, *EXTRA.get(kind, ())) as old:
            assert list(shape(old.connection)) == wanted, f"killed before statement {at}"
        at += 1
    assert at > 5, "nothing was migrated"


@pytest.mark.parametrize("chosen", ["", "com_20.500.12854_7", "open books", " two  blanks "])
def test_an_interrupted_harvest_and_its_cursor_are_found_again(chosen: str, tmp_path: Path) -> None:
    origin = f"{SERVER} oai_dc {chosen} 2000-01-01 "
    path = of_before(
        tmp_path / "doab.db",
        "doab-2.sql",
        ("INSERT INTO crawls VALUES ('ListRecords', ?, 'then', '2026-10-05T12:00:00Z', 'later', 0)", (origin,)),
        ("INSERT INTO crawls VALUES ('ListIdentifiers', ?, 'then', 'now', 'later', 1)", (f"{SERVER} oai_dc {chosen}",)),
        ("INSERT INTO windows (verb, first, last, token) VALUES ('ListRecords', 'a', 'b', 'half')", ()),
        ("INSERT INTO facts VALUES (?, '2026-10-04T12:00:00Z')", (f"harvest cursor of {SERVER} oai_dc {chosen}",)),
        ("INSERT INTO facts VALUES ('source of the worklist own', 'digest')", ()),
    )
    with DoabStore.open(path, re.compile(".*")) as store:
        everything = Origin(base_url=SERVER, prefix="oai_dc", set=chosen)
        harvest = CrawlState(store.connection, "ListRecords")
        assert harvest.origin() == Origin(base_url=SERVER, prefix="oai_dc", set=chosen, first="2000-01-01")
        window = harvest.next_window()
        assert window
        assert window.token == "half"
        listing = CrawlState(store.connection, "ListIdentifiers")
        assert (listing.origin(), listing.closing()) == (everything, True)
        assert store.fact(cursor_of(everything)) == "2026-10-04T12:00:00Z"
        facts = [row["name"] for row in store.connection.execute("SELECT name FROM facts ORDER BY name")]
        assert facts == [cursor_of(everything), "source of the worklist own"]


def test_lists_that_were_half_read_go_on_and_disagreements_are_not_heard_again(tmp_path: Path) -> None:
    insert = "INSERT INTO lists (name, cursor, completed, pages) VALUES (?, ?, ?, ?)"
    path = of_before(
        tmp_path / "atproto.db",
        "atproto-3.sql",
        (insert, (RELAY, "next", None, 3)),
        (insert, (f"{RELAY} app.bsky.feed.post", "", 12.5, 7)),
        ("INSERT INTO disagreements VALUES (?, ?, 'takendown')", (DID, RELAY)),
    )
    with AtprotoStore.open(path) as store:
        rows = store.connection.execute("SELECT origin, collection, cursor, completed, pages FROM lists").fetchall()
        assert [tuple(row) for row in rows] == [
            (RELAY, "", "next", None, 3),
            (RELAY, "app.bsky.feed.post", "", 12.5, 7),
        ]
        assert {tuple(row) for row in store.connection.execute("SELECT * FROM disagreements")} == {
            (DID, RELAY, "takendown")
        }
        assert List(RELAY, "app.bsky.feed.post", True, "").name == f"{RELAY} app.bsky.feed.post"


def test_an_account_keeps_the_directories_and_networks_it_was_added_with(tmp_path: Path) -> None:
    insert = "INSERT INTO repos (did, added, next_retry, plc, allow) VALUES (?, 1.0, ?, ?, ?)"
    path = of_before(
        tmp_path / "atproto.db",
        "atproto-3.sql",
        (insert, (DID, 1.0, "https://plc.a https://plc.b", "10.0.0.0/8 127.0.0.0/8")),
        (insert, ("did:plc:other", 2.0, "", "")),
        ("INSERT INTO facts VALUES ('excludes', 'did:plc:a did:plc:b')", ()),
    )
    with AtprotoStore.open(path) as store:
        queue = Queue(store, AtprotoSettings(), Shard())
        claims = [queue.take("", ()), queue.take("", (1,))]
        assert [(claim.plc, claim.allow) for claim in claims if claim] == [
            (("https://plc.a", "https://plc.b"), ("10.0.0.0/8", "127.0.0.0/8")),
            ((), ()),
        ]
        assert json.loads(store.fact("excludes")) == ["did:plc:a", "did:plc:b"]
