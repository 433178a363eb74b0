"""Searching one generation.

Both ways of searching give up to a hundred candidates with scores. Together they are ranked by a convex combination of
the two scores, each scaled to 0 to 1 over its candidates: Bruch, Gai and Ingber, "An Analysis of Fusion Functions for
Hybrid Retrieval" (ACM TOIS 2023), which rates it above reciprocal rank fusion.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from tickwork.contract import database, files
from tickwork.contract.outcomes import OperatorError
from tickwork.corpus.corpus import Corpus
from tickwork.generation.generations import Generation
from tickwork.generation.meta import SIMILAR
from tickwork.search.filters import Filter, condition
from tickwork.search.fts_query import match_expression

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tickwork.generation.matrix import Matrix
    from tickwork.vectors.exact_search import Vectors

Mode = Literal["words", "meaning", "both"]
Encode = Callable[[Sequence[str]], "Vectors"]
"""Queries to unit vectors, (len(queries), dim), by the model of the generation."""

CANDIDATES = 100
ALL_BELOW = 20_000
"""So few items that pass the filters are all compared with the query: an index would look in vain for most of them."""
SNIPPET_WORDS = 32
SNIPPET_CHARACTERS = 240
STEPS_BETWEEN_LOOKS = 10_000
"""Steps of SQLite's virtual machine, a fraction of a millisecond, between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One item found."""

    id: int
    identifier: str
    title: str
    score: float
    """0 to 1 in a search by both, BM25 by words (higher is better), cosine by meaning."""
    snippet: str
    url: str = ""


class Searcher:
    """One generation, opened for searching; use it from one thread at a time. Close it, or open it with `open`."""

    def __init__(
        self,
        corpus: Corpus,
        generation: Generation,
        encode: Encode,
        words_weight: float,
        marks: tuple[str, str] = ("", ""),
    ) -> None:
        """`marks` are put around the query's words in snippets."""
        self.corpus = corpus
        self.generation = generation
        self._encode = encode
        self._words_weight = words_weight
        self._marks = marks
        self.connection = database.connect(generation.database, read_only=True, threads=True)
        # Not by its mere path, which makes an empty file where it is missing.
        similar = f"file:{quote(str(generation.folder / SIMILAR))}?mode=ro"
        self.connection.execute("ATTACH ? AS near", (similar,))
        self._matrix: Matrix | None = None
        self._index: Any = None

    @classmethod
    @contextmanager
    def open(cls, corpus: Corpus, generation: Generation, encode: Encode, words_weight: float) -> Iterator[Searcher]:
        """Open a generation. Raises OperatorError naming the file that cannot be read, then or later."""
        with _reading(generation):
            searcher = cls(corpus, generation, encode, words_weight)
        try:
            yield searcher
        except sqlite3.DatabaseError as error:
            raise _unreadable(generation, error) from error
        finally:
            searcher.close()

    def close(self) -> None:
        """Close the files."""
        self.connection.close()

    def warm(self) -> None:
        """Open all files now, so that they can be read when they are deleted. Raises OperatorError naming a file."""
        with _reading(self.generation):
            self.connection.execute("SELECT max(id) FROM items").fetchone()
            self.connection.execute("SELECT max(source) FROM near.similar").fetchone()
            if self.generation.meta.vectors:
                self._open_index()
                self._open_matrix()

    def twin(self) -> Searcher:
        """Another one for another thread, with the same index and matrix in memory."""
        twin = Searcher(self.corpus, self.generation, self._encode, self._words_weight, self._marks)
        twin._index, twin._matrix = self._index, self._matrix
        return twin

    def give_up_after(self, seconds: float) -> None:
        """Have SQLite end what it does `seconds` from now with an OperationalError."""
        end = time.monotonic() + seconds
        self.connection.set_progress_handler(lambda: time.monotonic() > end, STEPS_BETWEEN_LOOKS)

    def search(
        self, query: str, mode: Mode, limit: int, filters: Sequence[Filter] = (), *, meaning: bool = True
    ) -> list[Hit]:
        """The best `limit` items for `query` that pass the filters.

        Without `meaning`, nothing is found by meaning: by both, scores are those of what only the words find.
        """
        wanted = max(limit, CANDIDATES)
        words = self._by_words(query, wanted, filters) if mode != "meaning" else {}
        with_meaning = meaning and mode != "words" and query.strip()
        near = self._by_meaning(query, wanted, filters) if with_meaning else {}
        scores = _fused(words, near, self._words_weight) if mode == "both" else words or near
        best = sorted(scores, key=lambda item: (-scores[item], item))[:limit]
        return self._hits(best, scores, query)

    def items(self, ids: Sequence[int]) -> dict[int, sqlite3.Row]:
        """The rows of the items with these ids, all their columns."""
        marks = ", ".join("?" * len(ids))
        rows = self.connection.execute(f"SELECT * FROM items WHERE id IN ({marks})", list(ids))  # noqa: S608
        return {row["id"]: row for row in rows}

    def similar_to(self, item: int, limit: int) -> list[Hit]:
        """The items most similar to the item with the id `item`, by the published lists."""
        rows = self.connection.execute(
            "SELECT similar, score FROM near.similar WHERE source = ? ORDER BY rank LIMIT ?", (item, limit)
        )
        scores = {row["similar"]: row["score"] for row in rows}
        return self._hits(list(scores), scores, "")

    def find(self, name: str) -> int:
        """The id of an item given its id or identifier. Raises OperatorError."""
        text = name.encode("utf-8", "replace").decode()  # a command line may have bytes that are no text
        row = self.connection.execute("SELECT id FROM items WHERE identifier = ?", (text,)).fetchone()
        if row is None and name.isascii() and name.isdigit() and len(name) < 19:
            row = self.connection.execute("SELECT id FROM items WHERE id = ?", (int(name),)).fetchone()
        if row is None:
            raise OperatorError(f"{self.corpus.name} has no item {name!r}")
        return int(row["id"])

    def _by_words(self, query: str, limit: int, filters: Sequence[Filter]) -> dict[int, float]:
        expression = match_expression(query)
        if not expression:
            return {}
        if not filters:
            rows = self.connection.execute(
                "SELECT rowid AS id, bm25(items_fts) AS score FROM items_fts WHERE items_fts MATCH ?"
                " ORDER BY score LIMIT ?",
                (expression, limit),
            )
        else:
            sql, values = condition(self.corpus, filters)
            rows = self.connection.execute(
                "SELECT items.id, bm25(items_fts) AS score FROM items_fts JOIN items ON items.id = items_fts.rowid"  # noqa: S608 - the columns are the corpus's
                f" WHERE items_fts MATCH ? AND {sql} ORDER BY score LIMIT ?",
                (expression, *values, limit),
            )
        return {row["id"]: -row["score"] for row in rows}

    def _by_meaning(self, query: str, limit: int, filters: Sequence[Filter]) -> dict[int, float]:
        if not self.generation.meta.vectors:
            raise OperatorError(
                f"the current generation of {self.corpus.name} has no vectors; run: tickwork embed {self.corpus.name},"
                f" then tickwork publish {self.corpus.name}. Until then search with --mode words"
            )
        vector = self._encode([query])
        if vector.shape[1] != self.generation.meta.dim:
            raise OperatorError(
                f"the model gives {vector.shape[1]} numbers, the vectors have {self.generation.meta.dim}"
            )
        if filters:
            return self._among(vector, self._passing(filters), limit)
        return self._by_index(vector, limit)

    def _by_index(self, vector: Vectors, limit: int, allowed: npt.NDArray[np.int64] | None = None) -> dict[int, float]:
        import faiss

        meta, index = self.generation.meta.index, self._open_index()
        parameters = None
        if allowed is not None:
            selector = faiss.IDSelectorBatch(allowed)
            parameters = faiss.SearchParametersIVF()
            parameters.sel, parameters.nprobe = selector, min(meta.nprobe, meta.nlist)
        scores, ids = index.search(vector.astype("float32"), limit, params=parameters)
        return {int(item): float(score) for item, score in zip(ids[0], scores[0], strict=True) if item >= 0}

    def _open_index(self) -> Any:  # noqa: ANN401 - faiss has no types
        from tickwork.generation.index import read_index

        if self._index is None:
            with _reading(self.generation):
                self._index = read_index(self.generation.folder, self.generation.meta.index)
        return self._index

    def _open_matrix(self) -> Matrix:
        from tickwork.generation.matrix import Matrix

        if self._matrix is None:
            with _reading(self.generation):
                self._matrix = Matrix.load(self.generation.folder)
        return self._matrix

    def _passing(self, filters: Sequence[Filter]) -> npt.NDArray[np.int64]:
        import numpy as np

        sql, values = condition(self.corpus, filters)
        rows = self.connection.execute(f"SELECT id FROM items WHERE {sql} ORDER BY id", values)  # noqa: S608
        return np.fromiter((row["id"] for row in rows), np.int64)

    def _among(self, vector: Vectors, allowed: npt.NDArray[np.int64], limit: int) -> dict[int, float]:
        import numpy as np

        matrix = self._open_matrix()
        places = np.flatnonzero(np.isin(matrix.ids, allowed, assume_unique=True))
        if len(places) > ALL_BELOW and self.generation.meta.index.nlist:
            return self._by_index(vector, limit, allowed)
        scores = matrix.vectors[places].astype(np.float32) @ vector[0].astype(np.float32)
        best = np.argsort(-scores, kind="stable")[:limit]
        return {int(matrix.ids[places[place]]): float(scores[place]) for place in best}

    def _hits(self, ids: Sequence[int], scores: Mapping[int, float], query: str) -> list[Hit]:
        marks = ", ".join("?" * len(ids))
        rows = self.connection.execute(
            f"SELECT id, identifier, title, url, substr(text, 1, {SNIPPET_CHARACTERS + 1}) AS start"  # noqa: S608
            f" FROM items WHERE id IN ({marks})",
            list(ids),
        )
        found = {row["id"]: row for row in rows}
        snippets = self._snippets(ids, query)
        return [
            Hit(
                id=item,
                identifier=row["identifier"],
                title=row["title"] or "",
                score=scores[item],
                snippet=snippets.get(item) or _shorten(row["start"] or ""),
                url=row["url"] or "",
            )
            for item in ids
            if (row := found.get(item)) is not None
        ]

    def _snippets(self, ids: Sequence[int], query: str) -> dict[int, str]:
        """The part of the text around the query's words, of the items that have them there."""
        expression = match_expression(query)
        if not expression or not ids:
            return {}
        marks = ", ".join("?" * len(ids))
        rows = self.connection.execute(
            f"SELECT rowid AS id, snippet(items_fts, 1, ?, ?, '…', {SNIPPET_WORDS}) AS snippet FROM items_fts"  # noqa: S608
            f" WHERE items_fts MATCH ? AND rowid IN ({marks})",
            (*self._marks, f"{{text}} : ({expression})", *ids),
        )
        return {row["id"]: row["snippet"] for row in rows}


@contextmanager
def _reading(generation: Generation) -> Iterator[None]:
    try:
        yield
    except (OperatorError, sqlite3.DatabaseError, OSError, ValueError) as error:
        raise _unreadable(generation, error) from error


def _unreadable(generation: Generation, error: Exception) -> OperatorError:
    """The error that names the damaged files: which they are, SQLite and numpy do not always say."""
    paths = {generation.folder / name: digest for name, digest in generation.meta.sha256.items()}
    damaged = [str(path) for path, digest in paths.items() if not path.is_file() or files.digest(path) != digest]
    return OperatorError(
        f"cannot read {', '.join(damaged) or generation.folder}: {error}."
        f" Roll back: tickwork generations roll-back {generation.meta.corpus}"
    )


def _fused(words: Mapping[int, float], meaning: Mapping[int, float], words_weight: float) -> dict[int, float]:
    scaled_words, scaled_meaning = _scaled(words), _scaled(meaning)
    return {
        item: words_weight * scaled_words.get(item, 0.0) + (1 - words_weight) * scaled_meaning.get(item, 0.0)
        for item in scaled_words.keys() | scaled_meaning.keys()
    }


def _scaled(scores: Mapping[int, float]) -> dict[int, float]:
    """Scores scaled so that the worst candidate has 0 and the best 1; where all are equal, 1."""
    if not scores:
        return {}
    low, high = min(scores.values()), max(scores.values())
    return {item: (score - low) / (high - low) if high > low else 1.0 for item, score in scores.items()}


def _shorten(text: str) -> str:
    """The beginning of a text, of which one character more than is shown says that it goes on; words are left whole."""
    if len(text) <= SNIPPET_CHARACTERS:
        return " ".join(text.split())
    cut = text[:SNIPPET_CHARACTERS]
    return " ".join((cut.rpartition(" ")[0] or cut).split()) + " …"
