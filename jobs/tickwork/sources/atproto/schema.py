"""The tables of atproto.db. CIDs and DIDs are text; times are unix seconds."""

from __future__ import annotations

import json
from functools import cache
from urllib.parse import urlsplit

from sqlite_utils import Database, Migrations

from tickwork.store.changes import follow, follow_values, touch_statements
from tickwork.upstream.hosts import UNKNOWN, InvalidHostError, host_key, server_of

migrations = Migrations("atproto")

_FOLLOWED = ("title", "text", "langs", "tags", "created")


@migrations()
def m001_repositories(db: Database) -> None:
    """Repositories with their queue, records, blocks, events, and the texts that are searched."""
    for statement in (
        # An id is never given twice: a repository that was removed and added again is another one, and a backfill that
        # was under way finds its own gone. `next_retry` says when it is to be fetched, NULL for not at all; `asked`
        # grows with every wish to have it fetched, so that one which comes during a backfill is not lost by its end.
        # `account` is the status last told in an event, `listed_rev` is what discovery read.
        """
        CREATE TABLE repos (
          id INTEGER PRIMARY KEY AUTOINCREMENT,
          did TEXT NOT NULL UNIQUE,
          status TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'synced', 'error', 'parked', 'discarded',
            'deactivated', 'takendown', 'suspended', 'deleted', 'tombstoned')),
          rev TEXT NOT NULL DEFAULT '', data TEXT NOT NULL DEFAULT '',
          pds TEXT NOT NULL DEFAULT '', handle TEXT NOT NULL DEFAULT '', signing_key TEXT NOT NULL DEFAULT '',
          tracked INTEGER NOT NULL DEFAULT 1, explicit INTEGER NOT NULL DEFAULT 0,
          host TEXT NOT NULL DEFAULT '',
          attempts INTEGER NOT NULL DEFAULT 0, next_retry REAL, asked INTEGER NOT NULL DEFAULT 0,
          error_kind TEXT NOT NULL DEFAULT '', last_error TEXT NOT NULL DEFAULT '',
          account TEXT NOT NULL DEFAULT '',
          listed_rev TEXT NOT NULL DEFAULT '', listed_status TEXT NOT NULL DEFAULT '',
          filter TEXT NOT NULL DEFAULT '', invalid_paths INTEGER NOT NULL DEFAULT 0,
          plc TEXT NOT NULL DEFAULT '', allow TEXT NOT NULL DEFAULT '',
          added REAL NOT NULL, tried REAL, synced REAL, changed REAL
        )""",
        "CREATE INDEX repos_due ON repos (host, next_retry, status) WHERE next_retry IS NOT NULL",
        "CREATE INDEX repos_status ON repos (status, error_kind)",
        """
        CREATE TABLE records (
          did TEXT NOT NULL, collection TEXT NOT NULL, rkey TEXT NOT NULL, cid TEXT NOT NULL,
          PRIMARY KEY (did, collection, rkey)
        ) WITHOUT ROWID""",
        # How many records and events refer to it; nothing keeps a block to which nothing refers.
        "CREATE TABLE blocks (cid TEXT PRIMARY KEY, data BLOB NOT NULL, refs INTEGER NOT NULL CHECK (refs >= 0))",
        # AUTOINCREMENT: a number that was pruned is not given again.
        """
        CREATE TABLE events (
          seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL CHECK (kind IN ('commit', 'account')),
          did TEXT NOT NULL, rev TEXT, collection TEXT, rkey TEXT,
          action TEXT CHECK (action IN ('create', 'update', 'delete')), cid TEXT,
          live INTEGER NOT NULL DEFAULT 0, active INTEGER, status TEXT, at REAL NOT NULL
        )""",
        """
        CREATE TABLE counts (
          did TEXT NOT NULL, collection TEXT NOT NULL, records INTEGER NOT NULL CHECK (records > 0),
          PRIMARY KEY (did, collection)
        ) WITHOUT ROWID""",
        # Where discovery is in each list.
        """
        CREATE TABLE lists (
          name TEXT PRIMARY KEY, cursor TEXT NOT NULL DEFAULT '', begun REAL, completed REAL,
          pages INTEGER NOT NULL DEFAULT 0, repositories INTEGER NOT NULL DEFAULT 0
        ) WITHOUT ROWID""",
        """
        CREATE TABLE texts (
          id INTEGER PRIMARY KEY AUTOINCREMENT,
          did TEXT NOT NULL, collection TEXT NOT NULL, rkey TEXT NOT NULL,
          title TEXT NOT NULL, text TEXT NOT NULL, langs TEXT NOT NULL, tags TEXT NOT NULL, created TEXT NOT NULL,
          UNIQUE (did, collection, rkey)
        )""",
    ):
        db.execute(statement)
    follow(db, "texts", _FOLLOWED)


@migrations()
def m002_handles(db: Database) -> None:
    """Texts are searched by the handle of their account too, so that one which changes is a change of them all."""
    # Naming a column is what the feed goes by.
    db.execute("""
        CREATE TRIGGER repos_handle AFTER UPDATE OF handle ON repos WHEN old.handle != new.handle
        BEGIN UPDATE texts SET title = title WHERE did = new.did; END
    """)


@migrations()
def m003_disagreements(db: Database) -> None:
    """Where a list has another status of an account than its server, what it said: that is news once."""
    db.execute("""
        CREATE TABLE disagreements (
          did TEXT NOT NULL, list TEXT NOT NULL, status TEXT NOT NULL, PRIMARY KEY (did, list)
        ) WITHOUT ROWID
    """)
    db.execute("ALTER TABLE repos DROP COLUMN listed_status")


@migrations()
def m004_changes_of_value(db: Database) -> None:
    """The feed tells of changes of value only; a handle that changes puts the account's texts into it by itself."""
    follow_values(db, "texts", _FOLLOWED)
    db.execute("DROP TRIGGER repos_handle")
    touched = "; ".join(touch_statements("texts", "did = new.did"))
    db.execute(f"""
        CREATE TRIGGER repos_handle AFTER UPDATE OF handle ON repos WHEN old.handle IS NOT new.handle
        BEGIN {touched}; END
    """)


@migrations()
def m005_lists(db: Database) -> None:
    """A list is named by two columns, and what was several words in one becomes JSON."""
    for statement in (
        "ALTER TABLE lists RENAME TO lists_by_name",
        """
        CREATE TABLE lists (
          origin TEXT NOT NULL, collection TEXT NOT NULL, cursor TEXT NOT NULL DEFAULT '', begun REAL, completed REAL,
          pages INTEGER NOT NULL DEFAULT 0, repositories INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (origin, collection)
        ) WITHOUT ROWID""",
        # Neither an address nor the name of a collection has a blank.
        """
        INSERT INTO lists
          SELECT substr(name, 1, instr(name || ' ', ' ') - 1), substr(name, instr(name || ' ', ' ') + 1),
            cursor, begun, completed, pages, repositories FROM lists_by_name""",
        "DROP TABLE lists_by_name",
        # Only a list of all repositories can disagree with a server, so its address names it.
        "ALTER TABLE disagreements RENAME COLUMN list TO origin",
    ):
        db.execute(statement)
    connection = db.conn
    for column in ("plc", "allow"):
        for (words,) in connection.execute(f"SELECT DISTINCT {column} FROM repos WHERE {column} != ''").fetchall():  # noqa: S608
            connection.execute(
                f"UPDATE repos SET {column} = ? WHERE {column} = ?",  # noqa: S608 - the names above
                (json.dumps(words.split()), words),
            )
    for (words,) in connection.execute("SELECT value FROM facts WHERE name = 'excludes'").fetchall():
        connection.execute("UPDATE facts SET value = ? WHERE name = 'excludes'", (json.dumps(words.split()),))


@migrations()
def m006_hosts(db: Database) -> None:
    """Servers and lists that were stored under another spelling of their address have the one that is used now.

    A server that cannot be named is not known: it is read anew from the account's document.
    """

    @cache
    def as_key(stored: str) -> str:
        try:
            return host_key(stored)
        except InvalidHostError:
            return UNKNOWN

    @cache
    def as_address(stored: str) -> str:
        try:
            return server_of(stored).origin + urlsplit(stored).path.rstrip("/")
        except InvalidHostError:
            return stored

    db.register_function(as_key, deterministic=True)
    db.register_function(as_address, deterministic=True)
    db.execute("UPDATE repos SET host = as_key(host) WHERE host != '' AND host != as_key(host)")
    db.execute("UPDATE repos SET pds = as_address(pds) WHERE pds != '' AND pds != as_address(pds)")
    for table in ("lists", "disagreements"):
        # Of two spellings of one list, the one that was right already is kept, or either.
        db.execute(f"UPDATE OR IGNORE {table} SET origin = as_address(origin) WHERE origin != as_address(origin)")  # noqa: S608
        db.execute(f"DELETE FROM {table} WHERE origin != as_address(origin)")  # noqa: S608
