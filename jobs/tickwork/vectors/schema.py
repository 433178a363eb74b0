"""The tables of a corpus's vectors, `{corpus}-vectors.db`."""

from __future__ import annotations

from sqlite_utils import Database, Migrations

migrations = Migrations("vectors")


@migrations()
def m001_vectors(db: Database) -> None:
    """One row for each live document, with a vector or with the reason why it has none."""
    for statement in (
        "CREATE TABLE models (id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, info TEXT NOT NULL)",
        # `seq` is the change of the document (store/changes.py) that this row is about, `hash` that of its text.
        """
        CREATE TABLE vectors (
          id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, model INTEGER NOT NULL REFERENCES models,
          hash BLOB NOT NULL, dtype TEXT NOT NULL, vector BLOB, fault TEXT NOT NULL DEFAULT ''
        )""",
        "CREATE INDEX vectors_model ON vectors (model)",
        "CREATE INDEX vectors_faults ON vectors (id) WHERE fault != ''",
    ):
        db.execute(statement)
