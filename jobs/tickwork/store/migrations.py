"""Bringing a database to the schema the code expects, with sqlite-utils migrations."""

from __future__ import annotations

import sqlite3
from importlib import import_module

from tickwork.contract.database import transaction
from tickwork.contract.outcomes import OperatorError

FACTS = "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"
"""The table that every store has, whatever its own schema: there before the first migration, which may use it."""


def migrate(connection: sqlite3.Connection, schema: str, version: int) -> None:
    """Apply what is pending of the module `schema`'s `migrations`, all or nothing; `version` is how many there are.

    The number is kept in `PRAGMA user_version`, so that a pass over an up-to-date file does not even import
    sqlite-utils. Raises OperatorError for a file written by a newer version of the code.
    """
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found == version:
        return
    if found > version:
        raise OperatorError(f"the database has schema {found}, newer than this version's {version}: upgrade tickwork")
    from sqlite_utils import Database

    with transaction(connection, schema):
        connection.execute(FACTS)
        import_module(schema).migrations.apply(Database(connection))
        connection.execute(f"PRAGMA user_version = {version}")
