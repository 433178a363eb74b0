"""The vectors of a corpus, in a database of their own: embedding never holds up whoever writes the documents."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tickwork.contract import database
from tickwork.store.migrations import migrate
from tickwork.vectors.info import ModelInfo

SCHEMA_VERSION = 1

Row = tuple[int, int, int, bytes, str, bytes | None, str]
"""id, seq, model, hash, dtype, vector as float16 or None, fault."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is stored of a document: at which change, by which model, of which text."""

    seq: int
    model: int
    hash: bytes


class VectorStore:
    """The vectors of one corpus. Open it with `open`, which closes it as well."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    @classmethod
    @contextmanager
    def open(cls, path: Path, *, read_only: bool = False) -> Iterator[VectorStore]:
        """Open the database at `path`, making or migrating it unless `read_only`. Raises OperatorError."""
        connection = database.connect(path, read_only=read_only)
        try:
            if not read_only:
                migrate(connection, "tickwork.vectors.schema", SCHEMA_VERSION)
            yield cls(connection)
        finally:
            connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One transaction: vectors, and how far the feed is followed."""
        with database.transaction(self.connection, "vectors"):
            yield

    def known(self, ids: Sequence[int]) -> dict[int, Known]:
        """What is stored of the documents `ids`."""
        found: dict[int, Known] = {}
        for identifier in ids:
            row = self.connection.execute("SELECT seq, model, hash FROM vectors WHERE id = ?", (identifier,)).fetchone()
            if row:
                found[identifier] = Known(row["seq"], row["model"], row["hash"])
        return found

    def seqs(self) -> list[tuple[int, int]]:
        """Pairs (id, seq) of all that is stored."""
        return [(row["id"], row["seq"]) for row in self.connection.execute("SELECT id, seq FROM vectors")]

    def model(self, info: ModelInfo) -> int:
        """The number of a model in this file, given to it now if need be, inside a transaction."""
        self.connection.execute(
            "INSERT OR IGNORE INTO models (fingerprint, info) VALUES (?, ?)",
            (info.fingerprint, msgspec.json.encode(info).decode()),
        )
        row = self.connection.execute("SELECT id FROM models WHERE fingerprint = ?", (info.fingerprint,)).fetchone()
        return int(row["id"])

    def models(self) -> list[tuple[ModelInfo, int]]:
        """The models that stored vectors are of, with how many."""
        rows = self.connection.execute(
            "SELECT info, n FROM models JOIN (SELECT model, count(*) n FROM vectors GROUP BY model) ON model = id"
        )
        return [(msgspec.json.decode(row["info"], type=ModelInfo), row["n"]) for row in rows]

    def put(self, rows: Sequence[Row]) -> None:
        """Store what there is now of some documents, inside a transaction."""
        if not rows:
            return
        self.connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self._count_revision()

    def still_valid(self, seqs: Sequence[tuple[int, int]]) -> None:
        """Note for pairs (seq, id) that the text did not change with the document, inside a transaction."""
        self.connection.executemany("UPDATE vectors SET seq = ? WHERE id = ?", seqs)

    def drop(self, ids: Sequence[int]) -> None:
        """Forget documents that are deleted, inside a transaction."""
        before = self.connection.total_changes
        self.connection.executemany("DELETE FROM vectors WHERE id = ?", [(identifier,) for identifier in ids])
        if self.connection.total_changes > before:
            self._count_revision()

    def counts(self) -> tuple[int, int]:
        """How many documents have a vector, and how many have a fault instead."""
        row = self.connection.execute("SELECT count(*), total(fault != '') FROM vectors").fetchone()
        return int(row[0] - row[1]), int(row[1])

    def faults(self) -> list[tuple[int, str]]:
        """The documents that could not be embedded, with why."""
        rows = self.connection.execute("SELECT id, fault FROM vectors WHERE fault != '' ORDER BY id")
        return [(row["id"], row["fault"]) for row in rows]

    @property
    def revision(self) -> int:
        """Grows with every change of a vector."""
        return int(self.fact("revision") or 0)

    def fact(self, name: str) -> str:
        """A remembered fact such as how far the feed is followed, or an empty string."""
        row = self.connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row["value"] if row else ""

    def remember(self, name: str, value: str) -> None:
        """Remember a fact, inside a transaction."""
        self.connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def _count_revision(self) -> None:
        self.remember("revision", str(self.revision + 1))
