"""What a source declares once to have its rows embedded, published and searched."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tickwork.corpus.document import Document
from tickwork.corpus.fields import Field

IDS_A_QUERY = 500


@dataclass(frozen=True, slots=True)
class Corpus:
    """A source's rows as documents.

    `table` has an AUTOINCREMENT `id` and a change feed (store/changes.py). `select` is a SELECT of the live rows that
    ends in a WHERE clause; a row that it does not give is deleted. `template` is the version of `embedded`: with
    another one all texts are embedded anew.
    """

    name: str
    database: str
    table: str
    select: str
    document: Callable[[sqlite3.Row], Document]
    fields: tuple[Field, ...] = ()
    template: str = "title and text"
    display: str = ""
    """How its items are shown, as `module:object` (corpus/display.py); plainly without one."""

    def rows(self, connection: sqlite3.Connection, ids: Sequence[int]) -> Iterator[Document]:
        """The live documents among `ids`, in the order of their ids."""
        for start in range(0, len(ids), IDS_A_QUERY):
            part = ids[start : start + IDS_A_QUERY]
            marks = ", ".join("?" * len(part))
            yield from map(self.document, connection.execute(f"{self.select} AND id IN ({marks}) ORDER BY id", part))

    def after(self, connection: sqlite3.Connection, last: int, limit: int) -> list[Document]:
        """Up to `limit` live documents with ids above `last`, in the order of their ids."""
        rows = connection.execute(f"{self.select} AND id > ? ORDER BY id LIMIT ?", (last, limit))
        return [self.document(row) for row in rows]
