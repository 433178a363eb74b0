"""Exporting the live records as JSON lines or CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import IO, Any

from tickwork.sources.doab.store import CANONICAL, LISTS, DoabStore

FIELDS = tuple(name for name in CANONICAL if name != "deleted")


def as_dicts(store: DoabStore) -> Iterator[dict[str, Any]]:
    """Every live record as a dictionary, lists as lists, in the order of the identifiers."""
    for row in store.rows(FIELDS, deleted=False):
        yield {name: json.loads(row[name]) if name in LISTS else row[name] for name in FIELDS}


def write_jsonl(store: DoabStore, out: IO[str]) -> int:
    """Write one JSON object a line; gives how many."""
    count = 0
    for count, record in enumerate(as_dicts(store), start=1):  # noqa: B007 - the count is the result
        out.write(json.dumps(record, ensure_ascii=False) + "\n")
    return count


def write_csv(store: DoabStore, out: IO[str]) -> int:
    """Write CSV with a header; values of a list are joined by `; `. Gives how many records."""
    writer = csv.writer(out)
    writer.writerow(FIELDS)
    count = 0
    for count, record in enumerate(as_dicts(store), start=1):  # noqa: B007
        values = (record[name] for name in FIELDS)
        writer.writerow("; ".join(value) if isinstance(value, list) else value for value in values)
    return count
