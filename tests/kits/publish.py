"""What the tests of publishing share: a deployment with books and vectors that need no model, and what it publishes."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import faiss
import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from tests.kits.deployment import Deployment
from tests.kits.nursery import Nursery
from tickwork.contract import database
from tickwork.contract.markers import Markers
from tickwork.corpus.document import embedded, text_hash
from tickwork.generation.generations import Generation, Generations
from tickwork.generation.index import read_index
from tickwork.generation.matrix import Matrix
from tickwork.generation.meta import SIMILAR
from tickwork.generation.model_info import ModelInfo
from tickwork.publish import full_text as words_stage
from tickwork.publish import index as index_stage
from tickwork.publish import similar as similar_stage
from tickwork.sources.doab.corpus import CORPUS
from tickwork.sources.doab.store import DoabStore
from tickwork.store import changes
from tickwork.store.migrations import migrate
from tickwork.vectors.store import VectorStore

DIM = 8
DRAINED, FAILED, MORE, HALTED, BUSY = 0, 1, 3, 4, 75
GENERATION = ("doab.db", "ids.npy", "index.faiss", "meta.json", "similar.db", "vectors.npy")
MODEL = ModelInfo(
    name="pkg:nobody", revision="", fingerprint="5" * 64, dim=DIM, max_tokens=256, prefix="", query_prefix=""
)
OTHER_MODEL = msgspec.structs.replace(MODEL, name="pkg:other", fingerprint="7" * 64)

Vector = npt.NDArray[np.float16]


def unit(numbers: npt.NDArray[Any]) -> npt.NDArray[np.float16]:
    """`numbers` (..., dim) scaled to unit length."""
    return (numbers / np.linalg.norm(numbers, axis=-1, keepdims=True)).astype(np.float16)


def some(count: int, seed: int = 0, dim: int = DIM) -> list[Vector]:
    """`count` vectors in no order."""
    return list(unit(np.random.default_rng(seed).standard_normal((count, dim))))


class Shelf(Deployment):
    """One deployment below `home`; `vectors` are keys of its `[vectors]` table. Threads are bounded: tests run aside.

    Every version of a book has a word of its own, `b12v0`, so that it can be seen which version is found.
    """

    def __init__(self, home: Path, **vectors: Any) -> None:
        super().__init__(home)
        self.vectors: dict[str, Any] = {"threads": 1, "top_k": 4}
        self.set(**vectors)
        self.generations = Generations(self.paths, "doab")
        self.words: dict[int, str] = {}
        self.gone: set[str] = set()
        self.given: dict[int, Vector | None] = {}

    def set(self, **vectors: Any) -> None:
        """Change keys of the `[vectors]` table."""
        self.vectors |= vectors
        lines = ["[vectors]", *(f"{name} = {json.dumps(value)}" for name, value in self.vectors.items())]
        self.config.write_text("\n".join(lines) + "\n")

    def mirror(self, home: Path) -> Shelf:
        """Another deployment that publishes the same books and vectors."""
        other = Shelf(home, **self.vectors)
        other.paths.state.mkdir()
        (other.paths.state / "db").symlink_to(self.paths.state / "db")
        other.words, other.gone, other.given = self.words, self.gone, self.given
        return other

    def clone(self, home: Path) -> Shelf:
        """A copy of all of this deployment."""
        other = Shelf(home, **self.vectors)
        shutil.copytree(self.paths.state, other.paths.state, symlinks=True)
        other.words, other.gone, other.given = dict(self.words), set(self.gone), dict(self.given)
        return other

    # Books and vectors.

    @contextlib.contextmanager
    def books(self) -> Iterator[sqlite3.Connection]:
        """The database of books; what is done in the block is one transaction."""
        with closing(database.connect(self.paths.database("doab"))) as connection:
            migrate(connection, "tickwork.sources.doab.schema", DoabStore.version)
            with database.transaction(connection, "books"):
                yield connection

    def add(self, vectors: Sequence[Vector | None]) -> list[int]:
        """Add a book for each of `vectors`, None for one that is not embedded; gives their ids."""
        ids = []
        with self.books() as books:
            row = books.execute("SELECT seq FROM sqlite_sequence WHERE name = 'records'").fetchone()
            for identifier in range(row[0] + 1 if row else 1, (row[0] if row else 0) + len(vectors) + 1):
                books.execute(
                    "INSERT INTO records (identifier, datestamp, first_seen, last_changed, title, description)"
                    " VALUES (?, '', '', '', ?, 'a book')",
                    (f"oai:test:{identifier}", word := f"b{identifier}v0"),
                )
                self.words[identifier] = word
                ids.append(identifier)
        self.embed(dict(zip(ids, vectors, strict=True)))
        return ids

    def change(self, vectors: Mapping[int, Vector | None]) -> None:
        """Give books other words and other vectors."""
        with self.books() as books:
            for identifier in vectors:
                self.gone.add(word := self.words[identifier])
                self.words[identifier] = f"{word.partition('v')[0]}v{int(word.partition('v')[2]) + 1}"
                change = "UPDATE records SET title = ? WHERE id = ?"
                books.execute(change, (self.words[identifier], identifier))
        self.embed(vectors)

    def delete(self, ids: Sequence[int], *, forget: bool = True) -> None:
        """Delete books, and their vectors if they are to be forgotten at once."""
        with self.books() as books:
            for identifier in ids:
                self.gone.add(self.words.pop(identifier))
                self.given.pop(identifier, None)
                if identifier % 2:
                    books.execute("UPDATE records SET deleted = 1 WHERE id = ?", (identifier,))
                else:
                    books.execute("DELETE FROM records WHERE id = ?", (identifier,))
        if forget:
            with self.store() as store, store.transaction():
                store.drop(ids)

    def embed(self, vectors: Mapping[int, Vector | None], model: ModelInfo = MODEL) -> None:
        """Store vectors of books as they are now."""
        self.given |= vectors
        with self.books() as books:
            documents = {document.id: document for document in CORPUS.rows(books, list(vectors))}
            seqs = {identifier: seq for seq, identifier in changes.after(books, "records", 0, 10**9)}
        with self.store() as store, store.transaction():
            number = store.model(model)
            store.drop([identifier for identifier, vector in vectors.items() if vector is None])
            store.put(
                [
                    (key, seqs[key], number, text_hash(embedded(documents[key])), "float32", vector.tobytes(), "")
                    for key, vector in vectors.items()
                    if vector is not None
                ]
            )

    def store(self) -> contextlib.AbstractContextManager[VectorStore]:
        """The database of vectors."""
        return VectorStore.open(self.paths.database("doab-vectors"))

    # Running.

    def publish(self, *options: str, only: str = "") -> Generation:
        """Publish, which must succeed; gives what is current then."""
        said = self.run("publish", "doab", *(("--only", only) if only else ()), *options)
        assert said.code == DRAINED, said
        return self.current()

    def current(self) -> Generation:
        """What is published now, every file of it verified."""
        return self.generations.verify(self.generations.current_name())

    def reason(self) -> str:
        """Why the last pass ended as it did."""
        with closing(sqlite3.connect(self.paths.database("ledger"))) as ledger:
            return str(ledger.execute("SELECT reason FROM passes ORDER BY id DESC LIMIT 1").fetchone()[0])

    def halted(self) -> str:
        """Why publishing is halted, empty when it is not."""
        return Markers(self.paths.job("doab-publish")).halted_reason()

    def leftovers(self) -> set[str]:
        """What lies beside the generations and within them and should not."""
        entries = {path for path in self.generations.folder.rglob("*") if not path.is_dir()}
        names = [entry.relative_to(self.generations.folder).as_posix() for entry in entries]
        return {name for name in names if name != "current" and not re.fullmatch(_FILE, name)}


def changed(shelf: Shelf) -> None:
    """Change, delete and add a few of sixty books or more."""
    shelf.change({identifier: some(1, identifier)[0] for identifier in (3, 20, 41)})
    shelf.delete([8, 11])
    shelf.add(some(4, 99))


def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units of a few books."""
    monkeypatch.setattr(words_stage, "AT_ONCE", 7)
    monkeypatch.setattr(similar_stage, "FOUND", 9)
    monkeypatch.setattr(similar_stage, "UPDATED", 11)
    monkeypatch.setattr(index_stage, "PART", 25)


_FILE = rf"\d{{8}}T\d{{6}}Z-[0-9a-f]{{6}}/({'|'.join(map(re.escape, GENERATION))})"

Lists = dict[int, list[tuple[int, float]]]


def lists(generation: Generation) -> Lists:
    """The similar items of each item, in the order of their ranks, which are 1, 2, 3..."""
    found: Lists = {}
    with closing(sqlite3.connect(generation.folder / SIMILAR)) as db:
        for source, similar, score, rank in db.execute(
            "SELECT source, similar, score, rank FROM similar ORDER BY source, rank"
        ):
            found.setdefault(source, []).append((similar, score))
            assert len(found[source]) == rank
    return found


def brute_force(matrix: Matrix, top_k: int) -> Lists:
    """What `lists` must be, computed as plainly as can be."""
    vectors = matrix.vectors.astype(np.float64)
    found: Lists = {}
    for place, source in enumerate(matrix.ids.tolist()):
        scores = (vectors @ vectors[place]).tolist()
        others = [(-score, other) for other, score in zip(matrix.ids.tolist(), scores, strict=True) if other != source]
        found[source] = [(other, -negative) for negative, other in sorted(others)[:top_k]]
    return {source: entries for source, entries in found.items() if entries}


def index_ids(generation: Generation) -> list[int]:
    """The ids in the index, read out of its own storage, ascending."""
    index: Any = read_index(generation.folder, generation.meta.index)
    if not generation.meta.index.nlist:
        return sorted(faiss.vector_to_array(index.id_map).tolist())
    found = faiss.extract_index_ivf(index).invlists
    sizes = [found.list_size(number) for number in range(found.nlist)]
    parts = [faiss.rev_swig_ptr(found.get_ids(number), size).tolist() for number, size in enumerate(sizes) if size]
    return sorted(identifier for part in parts for identifier in part)


def by_words(generation: Generation, word: str) -> list[int]:
    """The ids of the items that are found by a word."""
    with closing(sqlite3.connect(generation.database)) as items:
        query = "SELECT rowid FROM items_fts WHERE items_fts MATCH ? ORDER BY rowid"
        return [row[0] for row in items.execute(query, (f'"{word}"',))]


def agrees(shelf: Shelf, generation: Generation) -> None:
    """Assert that a generation is what the shelf holds now, as far as that can be told without another one."""
    meta, matrix = generation.meta, Matrix.load(generation.folder)
    live = {identifier for identifier, vector in shelf.given.items() if vector is not None}
    assert (meta.total, meta.vectors) == (len(shelf.words), len(live))
    assert matrix.ids.tolist() == sorted(live)
    assert all(np.array_equal(matrix.vectors[at], shelf.given[key]) for at, key in enumerate(matrix.ids.tolist()))
    assert index_ids(generation) == sorted(live)
    _words_agree(shelf, generation)


def _words_agree(shelf: Shelf, generation: Generation) -> None:
    with closing(sqlite3.connect(generation.database)) as items:
        items.execute("INSERT INTO items_fts (items_fts, rank) VALUES ('integrity-check', 1)")
        assert items.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        titles = dict(items.execute("SELECT id, title FROM items").fetchall())
        assert titles == shelf.words
        every = items.execute("SELECT rowid FROM items_fts WHERE items_fts MATCH 'book' ORDER BY rowid")
        assert [row[0] for row in every] == sorted(shelf.words)
        query = "SELECT rowid FROM items_fts WHERE items_fts MATCH ?"
        found = {word: [row[0] for row in items.execute(query, (word,))] for word in shelf.gone}
        assert found == {word: [] for word in shelf.gone}
        found = {word: [row[0] for row in items.execute(query, (word,))] for word in shelf.words.values()}
        assert found == {word: [identifier] for identifier, word in shelf.words.items()}


def content(generation: Generation) -> dict[str, Any]:
    """All that a generation holds, in a form in which two can be compared; not how its index is laid out."""
    matrix = Matrix.load(generation.folder)
    with closing(sqlite3.connect(generation.database)) as items:
        rows = items.execute("SELECT * FROM items ORDER BY id").fetchall()
        words = items.execute("SELECT rowid FROM items_fts WHERE items_fts MATCH 'book' ORDER BY rowid").fetchall()
    return {
        "items": rows,
        "found": words,
        "ids": matrix.ids.tolist(),
        "vectors": matrix.vectors.tobytes(),
        "lists": lists(generation),
        "index": index_ids(generation),
        "factory": generation.meta.index.factory,
        "watermark": generation.meta.watermark,
    }


class PublishNursery(Nursery):
    """Commands of publishing, which can be told to die by their own hand.

    `die_at` n: SIGKILL right before the n-th thing done to a file or folder below `generations/`.
    """

    prepare = """
import os, signal, sys
import faiss, numpy, sqlite_utils, torch
import tickwork.sources.doab.corpus, tickwork.publish.campaign, tickwork.publish.verify, tickwork.publish.commands
import tickwork.publish.index, tickwork.publish.similar, tickwork.publish.snapshot, tickwork.publish.full_text

EVENTS = {"os.rename", "os.remove", "os.symlink", "os.link", "os.rmdir", "os.mkdir", "open", "sqlite3.connect"}

def born(die_at=0):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    if die_at:
        deadly(die_at)

def deadly(die_at):
    left = [die_at]
    def hook(event, arguments):
        if event in EVENTS and ("/generations/" in str(arguments) or event in ("os.remove", "os.rmdir")):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
"""
