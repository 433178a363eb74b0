"""The vectors of a generation as a matrix, and how two of them differ."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from tickwork.contract import database
from tickwork.contract.outcomes import Transient
from tickwork.contract.units import Unit
from tickwork.publish import files
from tickwork.publish.build import SNAPSHOT, Build
from tickwork.publish.generations import IDS, VECTORS
from tickwork.store import changes
from tickwork.vectors.corpus import Corpus, embedded, text_hash
from tickwork.vectors.info import ModelInfo
from tickwork.vectors.store import VectorStore

Ids = npt.NDArray[np.int64]
Places = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float16]

ORIGIN = "origin.json"


@dataclass(frozen=True, slots=True)
class Matrix:
    """Vectors (n, dim) and the ids (n,) they belong to, ascending."""

    ids: Ids
    vectors: Vectors

    @classmethod
    def load(cls, folder: Path) -> Matrix:
        """Map the matrix of a generation."""
        return cls(np.load(folder / IDS), np.load(folder / VECTORS, mmap_mode="r"))


@dataclass(frozen=True, slots=True)
class Difference:
    """What is not in both of two matrices: ids only or otherwise in the old, places only or otherwise in the new."""

    removed: Ids
    added: Places


def difference(old: Matrix, new: Matrix) -> Difference:
    """How `new` differs from `old`; an item whose vector changed is both removed and added."""
    kept_ids, in_old, in_new = np.intersect1d(old.ids, new.ids, assume_unique=True, return_indices=True)
    same = (old.vectors[in_old].view(np.uint16) == new.vectors[in_new].view(np.uint16)).all(axis=1)
    unchanged = kept_ids[same]
    return Difference(
        removed=np.setdiff1d(old.ids, unchanged, assume_unique=True),
        added=np.flatnonzero(~np.isin(new.ids, unchanged, assume_unique=True)),
    )


class Origin(msgspec.Struct, kw_only=True, frozen=True):
    """Which model the matrix is of, and which revision of the stored vectors."""

    model: ModelInfo | None
    revision: int


def matrix(build: Build) -> Iterator[Unit]:
    """The stage that gathers the vectors of the snapshot's documents; one unit.

    A document changed since it was embedded is left out until it is embedded again, one whose text is the same is not.
    Raises Transient while vectors of two models are stored: they cannot be compared.
    """
    path = build.layout.database(f"{build.corpus.name}-vectors")
    found: dict[int, bytes] = {}
    origin = Origin(model=None, revision=0)
    if path.exists():
        with (
            VectorStore.open(path, read_only=True) as store,
            closing(database.connect(build.folder / SNAPSHOT, read_only=True)) as source,
        ):
            store.connection.execute("BEGIN")  # one state of the vectors, while others go on embedding
            origin = Origin(model=the_model(build.corpus, store), revision=store.revision)
            found = _valid(build.corpus, source, store)
    ids = np.fromiter(found, np.int64, len(found))
    order = np.argsort(ids)
    dim = len(next(iter(found.values()))) // 2 if found else 0
    vectors = np.frombuffer(b"".join(found.values()), np.float16).reshape(len(found), dim)
    with files.whole(build.folder / ORIGIN) as partial:
        partial.write_bytes(msgspec.json.encode(origin))
    with files.whole(build.folder / IDS) as partial, partial.open("wb") as file:
        np.save(file, ids[order])
    # Last, for by it the stage is known to be done.
    with files.whole(build.folder / VECTORS) as partial, partial.open("wb") as file:
        np.save(file, vectors[order])
    yield Unit(items=0, note=f"{len(ids)} vectors")


def the_model(corpus: Corpus, store: VectorStore) -> ModelInfo | None:
    """The one model of all stored vectors, None without any; Transient if there are several."""
    models = store.models()
    if len(models) > 1:
        kinds = ", ".join(f"{count} of {info.name} ({info.fingerprint[:8]})" for info, count in models)
        raise Transient(
            f"the vectors of {corpus.name} are of different models: {kinds}."
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
