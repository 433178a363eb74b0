"""The vectors of a corpus, in a database of their own: embedding never holds up whoever writes the documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from tickwork.generation.model_info import ModelInfo
from tickwork.store.base import Store

Row = tuple[int, int, int, bytes, str, bytes | None, str]
"""id, seq, model, hash, dtype, vector as float16 or None, fault."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is stored of a document: at which change, by which model, of which text."""

    seq: int
    model: int
    hash: bytes


class VectorStore(Store):
    """The vectors of one corpus. Open it with `open`, which closes it as well."""

    name = "vectors"
    schema = "tickwork.vectors.schema"
    version = 1

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

    def _count_revision(self) -> None:
        self.remember("revision", str(self.revision + 1))
