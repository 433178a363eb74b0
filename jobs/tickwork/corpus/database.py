"""Opening the database that holds the rows of a corpus, to follow what changes in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tickwork.contract import database
from tickwork.contract.outcomes import Transient
from tickwork.corpus.corpus import Corpus
from tickwork.store import changes


@contextmanager
def opened_source(path: Path, corpus: Corpus) -> Iterator[sqlite3.Connection]:
    """The database at `path` that holds the rows of `corpus`, read-only. Raises Transient while it has no feed."""
    with closing(database.connect(path, read_only=True)) as source:
        if not changes.is_followed(source, corpus.table):
            raise Transient(f"{path} has no feed of changes yet: the next pass that writes to it will add one")
        yield source
