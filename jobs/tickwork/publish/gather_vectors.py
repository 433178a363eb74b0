"""The stage that gathers the vectors of the documents of a campaign's snapshot into one matrix."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import msgspec
import numpy as np

from tickwork.contract import database, files
from tickwork.contract.outcomes import Transient
from tickwork.contract.units import Unit
from tickwork.corpus.corpus import Corpus
from tickwork.corpus.document import embedded, text_hash
from tickwork.generation.meta import IDS, VECTORS
from tickwork.generation.model_info import ModelInfo
from tickwork.publish.campaign_context import SNAPSHOT, CampaignContext
from tickwork.store import changes
from tickwork.vectors.store import VectorStore

ORIGIN = "origin.json"


class Origin(msgspec.Struct, kw_only=True, frozen=True):
    """Which model the matrix is of, and which revision of the stored vectors."""

    model: ModelInfo | None
    revision: int


def gather_vectors(context: CampaignContext) -> Iterator[Unit]:
    """The stage that gathers the vectors of the snapshot's documents; one unit.

    A document changed since it was embedded is left out until it is embedded again, one whose text is the same is not.
    Raises Transient while vectors of two models are stored: they cannot be compared.
    """
    path = context.paths.database(f"{context.corpus.name}-vectors")
    found: dict[int, bytes] = {}
    origin = Origin(model=None, revision=0)
    if path.exists():
        with (
            VectorStore.open(path, read_only=True) as store,
            closing(database.connect(context.folder / SNAPSHOT, read_only=True)) as source,
        ):
            store.connection.execute("BEGIN")  # one state of the vectors, while others go on embedding
            origin = Origin(model=the_model(context.corpus, store), revision=store.revision)
            found = _valid(context.corpus, source, store)
    ids = np.fromiter(found, np.int64, len(found))
    order = np.argsort(ids)
    dim = len(next(iter(found.values()))) // 2 if found else 0
    vectors = np.frombuffer(b"".join(found.values()), np.float16).reshape(len(found), dim)
    with files.whole(context.folder / ORIGIN) as partial:
        partial.write_bytes(msgspec.json.encode(origin))
    with files.whole(context.folder / IDS) as partial, partial.open("wb") as file:
        np.save(file, ids[order])
    # Last, for by it the stage is known to be done.
    with files.whole(context.folder / VECTORS) as partial, partial.open("wb") as file:
        np.save(file, vectors[order])
    yield Unit(items=0, note=f"{len(ids)} vectors")


def the_model(corpus: Corpus, store: VectorStore) -> ModelInfo | None:
    """The one model of all stored vectors, None without any; Transient if there are several."""
    models = store.models()
    if len(models) > 1:
        kinds = ", ".join(f"{count} of {info.name} ({info.fingerprint[:8]})" for info, count in models)
        raise Transient(
            f"the vectors of {corpus.name} come from different models: {kinds}."
            f" Embedding replaces the old ones: tickwork embed {corpus.name}"
        )
    return models[0][0] if models else None


def _valid(corpus: Corpus, source: sqlite3.Connection, store: VectorStore) -> dict[int, bytes]:
    """Vector by id of all live documents of `source` whose text is the one that was embedded."""
    feed = changes.feed_of(corpus.table)
    seqs = dict(source.execute(f"SELECT id, seq FROM {feed}").fetchall())  # noqa: S608
    live = {row[0] for row in source.execute(f"SELECT id FROM ({corpus.select})")}  # noqa: S608
    found: dict[int, bytes] = {}
    doubtful: dict[int, tuple[bytes, bytes]] = {}
    for row in store.connection.execute("SELECT id, seq, hash, vector FROM vectors WHERE vector IS NOT NULL"):
        if row["id"] in live:
            if seqs.get(row["id"]) == row["seq"]:
                found[row["id"]] = row["vector"]
            else:
                doubtful[row["id"]] = (row["hash"], row["vector"])
    for document in corpus.rows(source, sorted(doubtful)):
        digest, vector = doubtful[document.id]
        if text_hash(embedded(document)) == digest:
            found[document.id] = vector
    return found
