"""Answering a request from the open generations. These functions run in threads."""

from __future__ import annotations

import queue
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tickwork.contract.outcomes import OperatorError
from tickwork.search import browse, filters
from tickwork.search.searcher import CANDIDATES, Hit, Searcher
from tickwork.serve.encoder import NotReadyError
from tickwork.serve.library import Library
from tickwork.serve.open_generation import OpenGeneration, values_of
from tickwork.serve.search_request import Mode, RefusedError, SearchRequest

SECONDS = 5.0
"""That SQLite may work for one request."""
MOST_VALUES = 8
"""Values of a field that are offered as filters."""
MAX_SNIPPET = 400
"""Characters: thirty words can be a book where words are not told apart."""

_BEGINS = "will be possible in a moment"
_IMPOSSIBLE = "is not possible here"


@dataclass(frozen=True, slots=True)
class Item:
    """An item of an opened, as found."""

    opened: OpenGeneration
    row: sqlite3.Row
    score: float | None = None
    snippet: str = ""

    @property
    def corpus(self) -> str:
        """The name of its corpus."""
        return self.opened.corpus.name

    @property
    def fields(self) -> dict[str, list[str]]:
        """The values of its fields that are not empty."""
        found = {one.name: values_of(self.row, one) for one in self.opened.corpus.fields}
        return {name: values for name, values in found.items() if values}


@dataclass(slots=True)
class SearchResult:
    """What was found."""

    request: SearchRequest
    mode: Mode
    """How it was searched, which is by words alone where nothing can be searched by meaning (yet)."""
    total: int = 0
    items: list[Item] = field(default_factory=list)
    counts: browse.Counts = field(default_factory=dict)
    notice: str = ""
    generations: dict[str, str] = field(default_factory=dict)


def answer(library: Library, request: SearchRequest) -> SearchResult:
    """Search, or without a text go through the items. Raises RefusedError."""
    generations = [one for name, one in library.open_generations().items() if request.corpus in ("", name)]
    if not request.text and len(generations) > 1:
        raise RefusedError(400, "give a query (q), or name a corpus (in)")
    asked = _that_have(generations, request.filters)
    mode, by_meaning, notice = _mode([opened for opened, _ in asked], request)
    found = SearchResult(
        request, mode, notice=notice, generations={e.corpus.name: e.generation.name for e in generations}
    )
    counted: dict[str, Counter[str]] = {}
    for opened, conditions in asked:
        if mode == "meaning" and opened not in by_meaning:
            continue
        with _searching(opened) as searcher:
            if request.text:
                items, counts = _searched(opened, searcher, found, conditions, meaning=opened in by_meaning)
                found.total += len(items)
            else:
                items, counts, total = _browsed(opened, searcher, request, conditions)
                found.total += total
        found.items += items
        for name, values in counts.items():
            counted.setdefault(name, Counter()).update(values)
    # Scores of two corpora are only comparable by both and by meaning; by words it is the best that can be said. By
    # both, a corpus searched by words alone has the scores of what another finds by its words and not by meaning.
    found.items.sort(key=lambda item: -(item.score or 0))
    start = request.offset if request.text else 0
    found.items = found.items[start : start + request.limit]
    found.counts = {name: dict(values.most_common(MOST_VALUES)) for name, values in counted.items() if values}
    return found


def find(library: Library, corpus: str, item: int) -> Item:
    """The item with the id `item`. Raises RefusedError with 404."""
    opened = library.open_generations().get(corpus)
    if opened is not None:
        with _searching(opened) as searcher:
            if row := searcher.items([item]).get(item):
                return Item(opened, row)
    raise RefusedError(404, f"there is no item {item} in {corpus[:40]!r}")


def named(library: Library, corpus: str, column: str, value: str) -> int:
    """The id of the item that has `value` in `column`, which must be one of ours. Raises RefusedError with 404."""
    opened = library.open_generations().get(corpus)
    if opened is not None:
        with _searching(opened) as searcher:
            query = f"SELECT id FROM items WHERE {column} = ? LIMIT 1"  # noqa: S608 - columns are the source's
            if row := searcher.connection.execute(query, (value,)).fetchone():
                return int(row["id"])
    raise RefusedError(404, f"there is no item with the {column} {value[:80]!r}")


def similar(item: Item, limit: int) -> list[Item]:
    """The items most similar to `item`, the most similar first."""
    with _searching(item.opened) as searcher:
        hits = searcher.similar_to(item.row["id"], limit)
        return _items(item.opened, searcher, hits)


def _mode(generations: Sequence[OpenGeneration], request: SearchRequest) -> tuple[Mode, list[OpenGeneration], str]:
    """How to search, which generations also by meaning, and a notice of those whose model is missing.

    An opened without vectors has nothing to be found by meaning: it decides nothing for the others, and needs no
    notice. Raises RefusedError with 503 when only meaning is asked for and no opened can be searched by it.
    """
    if not request.text or request.mode == "words":
        return "words", [], ""
    by_meaning = [opened for opened in generations if opened.encoder and opened.encoder.ready]
    missing = {
        opened.corpus.name: _IMPOSSIBLE if opened.encoder.trouble else _BEGINS
        for opened in generations
        if opened.encoder and opened not in by_meaning
    }
    if by_meaning:
        instead = "it was searched by words" if request.mode == "both" else "it was left out"
        notices = [f"Searching {name} by meaning {reason}; {instead}." for name, reason in missing.items()]
        return request.mode, by_meaning, " ".join(notices)
    reason = _BEGINS if _BEGINS in missing.values() else _IMPOSSIBLE
    if request.mode == "meaning" and generations:
        raise RefusedError(503, f"Searching by meaning {reason}.")
    return "words", [], f"Searching by meaning {reason}; these results were found by words." if generations else ""


def _that_have(
    generations: Sequence[OpenGeneration], texts: Sequence[str]
) -> list[tuple[OpenGeneration, list[filters.Filter]]]:
    """The generations that have the fields of the filters. Raises RefusedError when none has."""
    found, wrong = [], ""
    for opened in generations:
        try:
            found.append((opened, filters.parse(opened.corpus, texts)))
        except OperatorError as error:
            wrong = str(error)
    if wrong and not found:
        raise RefusedError(400, wrong)
    return found


def _searched(
    opened: OpenGeneration,
    searcher: Searcher,
    found: SearchResult,
    conditions: Sequence[filters.Filter],
    *,
    meaning: bool,
) -> tuple[list[Item], browse.Counts]:
    hits = searcher.search(found.request.text, found.mode, CANDIDATES, conditions, meaning=meaning)
    items = _items(opened, searcher, hits)
    counts = {
        one.name: dict(Counter(value for item in items for value in values_of(item.row, one)))
        for one in opened.corpus.fields
        if one.facet
    }
    return items, counts


def _browsed(
    opened: OpenGeneration, searcher: Searcher, request: SearchRequest, conditions: Sequence[filters.Filter]
) -> tuple[list[Item], browse.Counts, int]:
    connection, corpus = searcher.connection, opened.corpus
    rows = browse.newest(connection, corpus, conditions, request.limit, request.offset)
    total = browse.total(connection, corpus, conditions)
    items = [Item(opened, row, snippet=" ".join((row["text"] or "")[:240].split())) for row in rows]
    return items, opened.counts(searcher, conditions, MOST_VALUES), total


def _items(opened: OpenGeneration, searcher: Searcher, hits: Sequence[Hit]) -> list[Item]:
    rows = searcher.items([hit.id for hit in hits])
    return [Item(opened, rows[hit.id], hit.score, _bounded(hit.snippet)) for hit in hits]


def _bounded(snippet: str) -> str:
    if len(snippet) <= MAX_SNIPPET:
        return snippet
    cut = snippet[:MAX_SNIPPET]
    return (cut.rpartition(" ")[0] or cut) + " …"


@contextmanager
def _searching(opened: OpenGeneration) -> Iterator[Searcher]:
    """A searcher; what goes wrong on the way becomes a RefusedError."""
    try:
        with opened.searcher(SECONDS) as searcher:
            yield searcher
    except queue.Empty as error:
        raise RefusedError(503, "Too many searches at once; try again in a moment.") from error
    except NotReadyError as error:
        raise RefusedError(503, f"Searching by meaning {_BEGINS}.") from error
    except sqlite3.OperationalError as error:
        if "interrupted" not in str(error):
            raise
        raise RefusedError(503, f"That took longer than {SECONDS:.0f} seconds; ask for less.") from error
