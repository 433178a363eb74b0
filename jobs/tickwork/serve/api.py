"""The JSON API. Its shapes are described by openapi.json and stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tickwork.serve.answer import Item, answer, find, similar
from tickwork.serve.question import MAX_LIMIT, read
from tickwork.serve.render import plain
from tickwork.serve.shelves import Library

Arguments = Mapping[str, Sequence[str]]
Json = dict[str, object]


class Api:
    """Answers requests; each method runs in a thread and gives what becomes JSON. They raise RefusedError."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def search(self, arguments: Arguments) -> Json:
        """The results of a search."""
        question = read(arguments, list(self._library.shelves))
        found = answer(self._library, question)
        return {
            "query": question.text,
            "mode": found.mode,
            "total": found.total,
            "notice": found.notice,
            "generations": found.generations,
            "results": [_brief(item) for item in found.items],
            "counts": {
                name: [{"value": value, "count": count} for value, count in values.items()]
                for name, values in found.counts.items()
            },
        }

    def corpora(self) -> Json:
        """What can be searched."""
        return {
            "corpora": [
                {
                    "name": name,
                    "items": edition.generation.meta.total,
                    "vectors": edition.generation.meta.vectors,
                    "generation": edition.generation.name,
                    "built_at": edition.generation.meta.built_at,
                    "fields": [{"name": f.name, "kind": f.kind, "counted": f.facet} for f in edition.corpus.fields],
                }
                for name, edition in self._library.editions().items()
            ]
        }

    def item(self, corpus: str, item: int) -> Json:
        """One item, whole."""
        found = find(self._library, corpus, item)
        return {**_named(found), "text": found.row["text"] or "", "fields": found.fields}

    def similar(self, corpus: str, item: int, arguments: Arguments) -> Json:
        """The items most similar to one."""
        question = read(arguments, [], known=["limit"])
        hits = similar(find(self._library, corpus, item), min(question.limit, MAX_LIMIT))
        return {"results": [_brief(hit) for hit in hits]}

    def health(self) -> tuple[int, Json]:
        """What is open and what is wrong; 200 as long as something can be searched."""
        corpora: Json = {}
        for name, shelf in self._library.shelves.items():
            encoder = shelf.edition.encoder if shelf.edition else None
            meaning = "ready" if encoder and encoder.ready else encoder.trouble or "loading" if encoder else "none"
            generation = shelf.edition.generation.name if shelf.edition else ""
            corpora[name] = {"generation": generation, "meaning": meaning, "refused": shelf.trouble}
        shelves = self._library.shelves.values()
        is_open = any(shelf.edition for shelf in shelves)
        wrong = any(shelf.trouble for shelf in shelves)
        status = "degraded" if is_open and wrong else "ok" if is_open else "damaged" if wrong else "empty"
        return 200 if is_open else 503, {"status": status, "corpora": corpora}


def _brief(item: Item) -> Json:
    return {
        **_named(item),
        "score": item.score,
        "snippet": plain(item.snippet),
        "fields": item.fields,
    }


def _named(item: Item) -> Json:
    row = item.row
    return {
        "corpus": item.corpus,
        "id": row["id"],
        "identifier": row["identifier"],
        "title": row["title"] or "",
        "url": row["url"] or "",
    }
