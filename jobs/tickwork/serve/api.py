"""The JSON API. Its shapes are described by openapi.json and stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tickwork.serve.library import Library
from tickwork.serve.render import plain
from tickwork.serve.search_request import MAX_LIMIT, read
from tickwork.serve.search_result import Item, answer, find, similar

Arguments = Mapping[str, Sequence[str]]
Json = dict[str, object]


class Api:
    """Answers requests; each method runs in a thread and gives what becomes JSON. They raise RefusedError."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def search(self, arguments: Arguments) -> Json:
        """The results of a search."""
        request = read(arguments, list(self._library.entries))
        found = answer(self._library, request)
        return {
            "query": request.text,
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
                    "items": opened.generation.meta.total,
                    "vectors": opened.generation.meta.vectors,
                    "generation": opened.generation.name,
                    "built_at": opened.generation.meta.built_at,
                    "fields": [{"name": f.name, "kind": f.kind, "counted": f.facet} for f in opened.corpus.fields],
                }
                for name, opened in self._library.open_generations().items()
            ]
        }

    def item(self, corpus: str, item: int) -> Json:
        """One item, whole."""
        found = find(self._library, corpus, item)
        return {**_named(found), "text": found.row["text"] or "", "fields": found.fields}

    def similar(self, corpus: str, item: int, arguments: Arguments) -> Json:
        """The items most similar to one."""
        request = read(arguments, [], known=["limit"])
        hits = similar(find(self._library, corpus, item), min(request.limit, MAX_LIMIT))
        return {"results": [_brief(hit) for hit in hits]}

    def health(self) -> tuple[int, Json]:
        """What is open and what is wrong; 200 as long as something can be searched."""
        corpora: Json = {}
        for name, entry in self._library.entries.items():
            encoder = entry.opened.encoder if entry.opened else None
            meaning = "ready" if encoder and encoder.ready else encoder.trouble or "loading" if encoder else "none"
            generation = entry.opened.generation.name if entry.opened else ""
            corpora[name] = {"generation": generation, "meaning": meaning, "refused": entry.trouble}
        entries = self._library.entries.values()
        is_open = any(entry.opened for entry in entries)
        wrong = any(entry.trouble for entry in entries)
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
