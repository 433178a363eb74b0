"""What a source declares once to have its rows embedded, published and searched."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Literal

from tickwork.contract.outcomes import OperatorError

Kind = Literal["text", "number", "list"]
Value = str | int | float | list[str] | None

IDS_A_QUERY = 500


@dataclass(frozen=True, slots=True)
class Field:
    """A column of the published items, to filter and to count by; a `list` holds several texts."""

    name: str
    kind: Kind = "text"
    facet: bool = False
    """Whether its values are few enough to be offered with their counts."""


@dataclass(frozen=True, slots=True)
class Document:
    """One item as it is searched and shown."""

    id: int
    identifier: str
    title: str
    text: str
    """The body: searched, embedded, and shown in part."""
    words: str = ""
    """What else it is found by (people, numbers, subjects), not shown."""
    url: str = ""
    fields: Mapping[str, Value] = field(default_factory=dict)


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


def embedded(document: Document) -> str:
    """The text that is embedded: title, blank line, body, blank line, what else it is found by."""
    return "\n\n".join(part for part in (document.title.strip(), document.text.strip(), document.words.strip()) if part)


def text_hash(text: str) -> bytes:
    """16 bytes by which an embedded text is known again."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


def find(sources: Iterable[str], name: str) -> Corpus:
    """The corpus called `name`; OperatorError lists those there are."""
    corpora = {corpus.name: corpus for source in sources for corpus in corpora_of(source)}
    if name not in corpora:
        raise OperatorError(f"there is no corpus {name!r}; the corpora are: {', '.join(sorted(corpora))}")
    return corpora[name]


def corpora_of(source: str) -> tuple[Corpus, ...]:
    """The corpora that a source declares in its module `corpus`."""
    corpora: tuple[Corpus, ...] = import_module(f"tickwork.{source}.corpus").CORPORA
    return corpora
