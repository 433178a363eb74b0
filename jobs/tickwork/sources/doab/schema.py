"""The tables of doab.db."""

from __future__ import annotations

import json

from sqlite_utils import Database, Migrations

from tickwork.store.changes import follow, follow_values

# What says when we heard of a record, and nothing of the record itself.
_OF_OURS = {"id", "datestamp", "first_seen", "last_changed"}

migrations = Migrations("doab")


@migrations()
def m001_records_crawls_worklist(db: Database) -> None:
    """Records; the state of a running crawl; the worklist of the backfill."""
    for statement in (
        # A tombstone keeps its row and id, and loses its metadata: a deletion upstream may be a takedown.
        """
        CREATE TABLE records (
          id INTEGER PRIMARY KEY AUTOINCREMENT,
          identifier TEXT NOT NULL UNIQUE, handle TEXT, datestamp TEXT NOT NULL, deleted INTEGER NOT NULL DEFAULT 0,
          title TEXT NOT NULL DEFAULT '', description TEXT NOT NULL DEFAULT '',
          creators TEXT NOT NULL DEFAULT '[]', editors TEXT NOT NULL DEFAULT '[]',
          contributors TEXT NOT NULL DEFAULT '[]', subjects TEXT NOT NULL DEFAULT '[]',
          publisher TEXT NOT NULL DEFAULT '', issued TEXT NOT NULL DEFAULT '', year INTEGER,
          type TEXT NOT NULL DEFAULT '', language TEXT NOT NULL DEFAULT '', links TEXT NOT NULL DEFAULT '[]',
          licence TEXT NOT NULL DEFAULT '', isbns TEXT NOT NULL DEFAULT '[]',
          isbns_rejected TEXT NOT NULL DEFAULT '[]', doi TEXT NOT NULL DEFAULT '',
          series TEXT NOT NULL DEFAULT '[]', pages TEXT NOT NULL DEFAULT '',
          first_seen TEXT NOT NULL, last_changed TEXT NOT NULL
        )""",
        "CREATE INDEX records_handle ON records (handle)",
        # One crawl at a time for each verb; `origin` says for which server and bounds it is, so that another request
        # does not continue it.
        """
        CREATE TABLE crawls (
          verb TEXT PRIMARY KEY, origin TEXT NOT NULL, started TEXT NOT NULL,
          first_response TEXT NOT NULL, last_response TEXT NOT NULL, closing INTEGER NOT NULL DEFAULT 0
        ) WITHOUT ROWID""",
        """
        CREATE TABLE windows (
          id INTEGER PRIMARY KEY AUTOINCREMENT,
          verb TEXT NOT NULL REFERENCES crawls ON DELETE CASCADE,
          first TEXT NOT NULL, last TEXT NOT NULL, done INTEGER NOT NULL DEFAULT 0,
          token TEXT NOT NULL DEFAULT '', expires TEXT NOT NULL DEFAULT '', pages INTEGER NOT NULL DEFAULT 0,
          empty_pages INTEGER NOT NULL DEFAULT 0, size INTEGER, shifted INTEGER NOT NULL DEFAULT 0,
          restarts INTEGER NOT NULL DEFAULT 0, previous INTEGER
        )""",
        "CREATE INDEX windows_todo ON windows (verb, done, first)",
        """
        CREATE TABLE seen (
          window INTEGER NOT NULL REFERENCES windows ON DELETE CASCADE, identifier TEXT NOT NULL,
          datestamp TEXT NOT NULL, deleted INTEGER NOT NULL, PRIMARY KEY (window, identifier)
        ) WITHOUT ROWID""",
        """
        CREATE TABLE tokens (
          window INTEGER NOT NULL REFERENCES windows ON DELETE CASCADE, token TEXT NOT NULL,
          PRIMARY KEY (window, token)
        ) WITHOUT ROWID""",
        """
        CREATE TABLE worklist (
          list TEXT NOT NULL, position INTEGER NOT NULL, identifier TEXT NOT NULL,
          state TEXT NOT NULL DEFAULT 'todo' CHECK (state IN ('todo', 'ok', 'gone', 'present', 'retry', 'review')),
          attempts INTEGER NOT NULL DEFAULT 0, next_attempt TEXT NOT NULL DEFAULT '',
          settled TEXT NOT NULL DEFAULT '', why TEXT NOT NULL DEFAULT '',
          PRIMARY KEY (list, position), UNIQUE (list, identifier)
        ) WITHOUT ROWID""",
        "CREATE INDEX worklist_todo ON worklist (list, state, position)",
        "CREATE INDEX worklist_settled ON worklist (list, settled)",
    ):
        db.execute(statement)


@migrations()
def m002_changes(db: Database) -> None:
    """The change feed that embedding and publishing follow."""
    follow(db, "records", _followed(db))


@migrations()
def m003_changes_of_value(db: Database) -> None:
    """The feed tells of changes of value only."""
    follow_values(db, "records", _followed(db))


@migrations()
def m004_origins(db: Database) -> None:
    """What a crawl, and a cursor, is of becomes JSON: joined by blanks, a set with a blank could not be told apart."""
    connection = db.conn
    for verb, text in connection.execute("SELECT verb, origin FROM crawls").fetchall():
        # Neither an address, a prefix nor a date has a blank, so whatever stands between them is the set.
        base_url, prefix, rest = text.split(" ", 2)
        chosen, first, last = rest.rsplit(" ", 2) if verb == "ListRecords" else (rest, "", "")
        origin = {"base_url": base_url, "prefix": prefix, "set": chosen, "first": first, "last": last}
        connection.execute("UPDATE crawls SET origin = ? WHERE verb = ?", (json.dumps(origin), verb))
    cursor = "harvest cursor of "
    for name, value in connection.execute(
        "SELECT name, value FROM facts WHERE name LIKE ?", (f"{cursor}%",)
    ).fetchall():
        list_of = json.dumps(name.removeprefix(cursor).split(" ", 2), ensure_ascii=False)
        connection.execute("DELETE FROM facts WHERE name = ?", (name,))
        connection.execute("INSERT INTO facts VALUES (?, ?)", (f"{cursor}{list_of}", value))


def _followed(db: Database) -> list[str]:
    return [column for column in db["records"].columns_dict if column not in _OF_OURS]
