"""A generation, open to be searched by several threads."""

from __future__ import annotations

import json
import queue
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tickwork.corpus.corpus import Corpus
from tickwork.corpus.fields import Field
from tickwork.generation.generations import Generation
from tickwork.search import browse
from tickwork.search.browse import Counts
from tickwork.search.filters import Filter
from tickwork.search.searcher import Searcher
from tickwork.serve.encoder import Encoder, NotReadyError
from tickwork.vectors.exact_search import Vectors

THREADS = 4
"""That search at once, and so the searchers of an opened."""
REMEMBERED = 1000
"""Sets of filters whose counts are kept."""
MARKS = ("\x01", "\x02")
"""Around the words found in a snippet; no text has these, and the pages turn them into elements."""


class OpenGeneration:
    """One generation of a corpus, all of whose files are open: they may be deleted meanwhile."""

    def __init__(self, corpus: Corpus, generation: Generation, encoder: Encoder | None, words_weight: float) -> None:
        """`encoder` is None where there are no vectors. Raises OperatorError naming a file that cannot be read."""
        self.corpus = corpus
        self.generation = generation
        self.encoder = encoder
        first = Searcher(corpus, generation, encoder.encode if encoder else _no_model, words_weight, MARKS)
        first.warm()
        self._idle: queue.SimpleQueue[Searcher] = queue.SimpleQueue()
        for searcher in (first, *(first.twin() for _ in range(THREADS - 1))):
            searcher.warm()
            self._idle.put(searcher)
        self._open = THREADS
        self._counts: dict[tuple[Filter, ...], Counts] = {}
        self._closing = False
        self._lock = threading.Lock()

    @contextmanager
    def searcher(self, seconds: float) -> Iterator[Searcher]:
        """A searcher for one thread, whose SQL ends after `seconds`. Raises queue.Empty when all are busy so long."""
        searcher = self._idle.get(timeout=seconds)
        try:
            searcher.give_up_after(seconds)
            yield searcher
        finally:
            with self._lock:
                self._idle.put(searcher)
                if self._closing:
                    self._close_idle()

    def counts(self, searcher: Searcher, filters: Sequence[Filter], most: int) -> Counts:
        """What `browse.counts` says, remembered: nothing changes here."""
        known = self._counts.get(key := tuple(filters))
        if known is None:
            known = browse.counts(searcher.connection, self.corpus, filters, most)
            if len(self._counts) < REMEMBERED:
                self._counts[key] = known
        return known

    def close(self) -> None:
        """Close the files, each when nobody is searching it any more."""
        with self._lock:
            self._closing = True
            self._close_idle()

    @property
    def is_closed(self) -> bool:
        """Whether all files are closed."""
        return self._open == 0

    def _close_idle(self) -> None:
        while not self._idle.empty():
            self._idle.get().close()
            self._open -= 1


def _no_model(_texts: Sequence[str]) -> Vectors:
    raise NotReadyError("nothing is embedded yet")


def values_of(row: sqlite3.Row, field: Field) -> list[str]:
    """The values of a field of an item, as texts; none for an empty one."""
    value = row[field.name]
    if value is None or value == "":
        return []
    return [str(one) for one in json.loads(value)] if field.kind == "list" else [str(value)]
