"""The stage that makes the items and their full-text index: anew, or from those of the generation before.

The index is FTS5 over the table of items as external content. Triggers keep the two together: FTS5 can only forget a
row when it is told what stood in it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from sqlite_utils import Database

from tickwork.contract import database, files
from tickwork.contract.database import transaction
from tickwork.contract.units import Unit
from tickwork.corpus.corpus import Corpus
from tickwork.corpus.document import Document
from tickwork.publish.campaign_context import SNAPSHOT, CampaignContext
from tickwork.store import changes

SEARCHED = ("title", "text", "words")
OWN = ("id", "identifier", "title", "text", "words", "url")
AT_ONCE = 1000
_TYPES = {"text": "TEXT", "number": "NUMERIC", "list": "TEXT"}


def full_text(context: CampaignContext) -> Iterator[Unit]:
    """Make the database of items; one unit is up to a thousand of them."""
    final = context.folder / f"{context.corpus.name}.db"
    partial = final.with_name(final.name + ".partial")
    with closing(database.connect(context.folder / SNAPSHOT, read_only=True)) as source:
        if not partial.exists():
            with files.whole(partial, lasts=False) as starting:
                _start(context, source, starting)
        with closing(database.connect(partial)) as items:
            # How far it is stands in the file itself: work and progress commit together.
            done = _progress(items)
            if "seq" in done:
                yield from _follow(context.corpus, source, items, done["seq"])
            elif "id" in done:
                yield from _fill(context.corpus, source, items, done["id"])
            with transaction(items, "items"):
                if "id" in done:
                    items.execute("INSERT INTO items_fts (items_fts) VALUES ('optimize')")
                items.execute("DROP TABLE IF EXISTS progress")
            files.into_one(items)
        files.settle(partial, final)
    yield Unit(items=0, note="items")


def _progress(items: sqlite3.Connection) -> dict[str, int]:
    """The change, or the id, that the work has got to; nothing when it was all done."""
    if not items.execute("SELECT 1 FROM sqlite_master WHERE name = 'progress'").fetchone():
        return {}
    return dict(items.execute("SELECT name, value FROM progress").fetchall())


def _start(context: CampaignContext, source: sqlite3.Connection, starting: Path) -> None:
    """Begin with a copy of the base's items where they are of the same shape, with an empty table otherwise."""
    base, seq = context.of_base(f"{context.corpus.name}.db"), 0
    if base and context.base:
        with closing(database.connect(base, read_only=True)) as before:
            same = [row["name"] for row in before.execute("PRAGMA table_info(items)")] == _columns(context.corpus)
        seq = context.base.meta.watermark.documents
        # Without that change, the source may be a restored copy: what the base has of it is not known.
        if same and changes.has(source, context.corpus.table, seq):
            files.copy(base, starting)
        else:
            base = None
    with closing(database.connect(starting)) as items:
        with transaction(items, "items"):
            if base is None:
                _create(context.corpus, items)
            items.execute("CREATE TABLE progress (name TEXT PRIMARY KEY, value INTEGER NOT NULL)")
            items.execute("INSERT INTO progress VALUES (?, ?)", ("seq", seq) if base else ("id", 0))
        files.into_one(items)


def _columns(corpus: Corpus) -> list[str]:
    return [*OWN, *(field.name for field in corpus.fields)]


def _create(corpus: Corpus, items: sqlite3.Connection) -> None:
    own = "id INTEGER PRIMARY KEY, identifier TEXT NOT NULL, title TEXT, text TEXT, words TEXT, url TEXT"
    items.execute(f"CREATE TABLE items ({own}{''.join(f', {f.name} {_TYPES[f.kind]}' for f in corpus.fields)})")
    items.execute("CREATE INDEX items_identifier ON items (identifier)")
    for field in corpus.fields:
        if field.facet and field.kind != "list":
            items.execute(f"CREATE INDEX items_{field.name} ON items ({field.name})")
    Database(items).table("items").enable_fts(SEARCHED, create_triggers=True, tokenize="unicode61 remove_diacritics 2")


def _fill(corpus: Corpus, source: sqlite3.Connection, items: sqlite3.Connection, last: int) -> Iterator[Unit]:
    """Insert all documents with ids above `last`, in their order."""
    while documents := corpus.after(source, last, AT_ONCE):
        last = documents[-1].id
        with transaction(items, "items"):
            _insert(corpus, items, documents)
            items.execute("UPDATE progress SET value = ? WHERE name = 'id'", (last,))
        yield Unit(items=len(documents), note="items")


def _follow(corpus: Corpus, source: sqlite3.Connection, items: sqlite3.Connection, seq: int) -> Iterator[Unit]:
    """Do again what happened to the documents since the base was made."""
    while window := changes.after(source, corpus.table, seq, AT_ONCE):
        seq, ids = window[-1][0], [identifier for _, identifier in window]
        documents = list(corpus.rows(source, ids))
        with transaction(items, "items"):
            items.executemany("DELETE FROM items WHERE id = ?", [(identifier,) for identifier in ids])
            _insert(corpus, items, documents)
            items.execute("UPDATE progress SET value = ? WHERE name = 'seq'", (seq,))
        yield Unit(items=len(documents), note="items")


def _insert(corpus: Corpus, items: sqlite3.Connection, documents: Sequence[Document]) -> None:
    columns = _columns(corpus)
    items.executemany(
        f"INSERT INTO items ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",  # noqa: S608
        [_row(corpus, document) for document in documents],
    )


def _row(corpus: Corpus, document: Document) -> tuple[object, ...]:
    values = (document.fields.get(field.name) for field in corpus.fields)
    own = (document.id, document.identifier, document.title, document.text, document.words, document.url)
    return (*own, *(json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value for value in values))
