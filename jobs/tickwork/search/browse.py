"""Going through the items of a generation without a query: by their fields, newest first."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from tickwork.corpus.corpus import Corpus
from tickwork.search.filters import Filter, condition

Counts = dict[str, dict[str, int]]
"""Of each countable field, how often its values occur, the most frequent first."""


def total(items: sqlite3.Connection, corpus: Corpus, filters: Sequence[Filter]) -> int:
    """How many items pass the filters."""
    sql, values = condition(corpus, filters)
    return int(items.execute(f"SELECT count(*) FROM items WHERE {sql}", values).fetchone()[0])  # noqa: S608


def newest(
    items: sqlite3.Connection, corpus: Corpus, filters: Sequence[Filter], limit: int, offset: int
) -> list[sqlite3.Row]:
    """Items that pass the filters, those that came last first."""
    sql, values = condition(corpus, filters)
    query = f"SELECT * FROM items WHERE {sql} ORDER BY id DESC LIMIT ? OFFSET ?"  # noqa: S608
    return items.execute(query, (*values, limit, offset)).fetchall()


def counts(items: sqlite3.Connection, corpus: Corpus, filters: Sequence[Filter], most: int) -> Counts:
    """The `most` frequent values of each countable field among all items that pass the filters."""
    sql, values = condition(corpus, filters)
    found = {}
    for field in corpus.fields:
        if field.facet:
            source, value = ("items", f"items.{field.name}")
            if field.kind == "list":
                source, value = (f"items, json_each(items.{field.name}) AS one", "one.value")
            rows = items.execute(
                f"SELECT {value} AS value, count(*) AS n FROM {source} WHERE {sql} AND {value} <> ''"  # noqa: S608
                " GROUP BY 1 ORDER BY n DESC, 1 LIMIT ?",
                (*values, most),
            )
            found[field.name] = {str(row["value"]): int(row["n"]) for row in rows}
    return found
