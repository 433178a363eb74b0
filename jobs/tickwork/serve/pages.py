"""The pages: home and results, browsing, an item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tickwork.corpus.display import Display, Shown
from tickwork.serve.library import Library
from tickwork.serve.render import render, shorten
from tickwork.serve.search_request import MAX_OFFSET, MODES, SearchRequest, read
from tickwork.serve.search_result import Item, answer, find, named, similar

Arguments = Mapping[str, Sequence[str]]
NAMES = {"both": "Both", "words": "Words", "meaning": "Meaning"}
HOW_MANY_SIMILAR = 10
VALUES_IN_BRIEF = 4
SHORT = 60
"""Characters of a value in a list."""
VALUES_OF_FIELD = 30
MAX_ON_PAGE = 20
"""Items; the API gives more. With what the templates cut off, a page stays below 50 kB."""
MAX_TEXT = 16_000
"""Bytes of an item's text on its page; the API gives all of it."""


class Pages:
    """Makes the pages; each method runs in a thread and gives HTML. They raise RefusedError."""

    def __init__(self, library: Library, displays: Mapping[str, Display]) -> None:
        """`displays` by the name of the corpus."""
        self._library = library
        self._displays = displays

    def home(self, arguments: Arguments) -> str:
        """The search box and what there is; with a query, what was found."""
        request = read(arguments, list(self._library.entries))
        if request.text:
            return self._results(request, "/")
        if request.filters:
            names = list(self._library.open_generations())
            corpus = request.corpus or (names[0] if len(names) == 1 else "")
            return self._results(replace(request, corpus=corpus), f"/browse/{corpus}")
        return render("home.html", request=request, **self._common())

    def browse(self, corpus: str, arguments: Arguments) -> str:
        """The items of one corpus, newest first."""
        request = read({**arguments, "in": [corpus]}, list(self._library.entries))
        if request.text:
            return self._results(request, "/")
        return self._results(request, f"/browse/{corpus}")

    def item(self, corpus: str, item: int) -> str:
        """An item and what is most similar to it."""
        found = find(self._library, corpus, item)
        text = found.row["text"] or ""
        begins = text.encode()[:MAX_TEXT].decode(errors="ignore")
        return render(
            "item.html",
            request=SearchRequest(corpus=corpus),
            item=found,
            text=begins,
            is_whole=begins == text,
            fields={name: self._all_shown(corpus, name, values) for name, values in found.fields.items()},
            similar=similar(found, HOW_MANY_SIMILAR),
            **self._common(),
        )

    def error(self, status: int, message: str) -> str:
        """A page that says what is wrong with a request."""
        return render("error.html", request=SearchRequest(), status=status, message=message, **self._common())

    def _results(self, request: SearchRequest, path: str) -> str:
        request = replace(request, limit=min(request.limit, MAX_ON_PAGE))
        found = answer(self._library, request)
        last = min(found.total, MAX_OFFSET)
        following, previous = request.offset + request.limit, max(0, request.offset - request.limit)
        return render(
            "results.html",
            request=request,
            found=found,
            path=path,
            following=request.url(path, offset=following) if following < last else "",
            previous=request.url(path, offset=previous) if request.offset else "",
            **self._common(),
        )

    def _all_shown(self, corpus: str, name: str, values: Sequence[str]) -> list[Shown]:
        shown = [self._shown(corpus, name, one) for one in values[:VALUES_OF_FIELD]]
        more = len(values) - len(shown)
        return [*shown, Shown(f"… and {more} more")] if more else shown

    def _shown(self, corpus: str, name: str, value: str) -> Shown:
        display = self._displays.get(corpus, Display())
        return display.shown[name](value) if name in display.shown else Shown(value)

    def _brief(self, item: Item) -> list[str]:
        """What stands below the title of an item in a list: its main fields, the first few values of each."""
        fields, display = item.fields, self._displays.get(item.corpus, Display())
        return [
            "; ".join(shorten(value, SHORT) for value in fields[name][:VALUES_IN_BRIEF])
            for name in display.brief
            if name in fields
        ]

    def _common(self) -> dict[str, object]:
        modes = [(mode, NAMES[mode]) for mode in MODES]
        return {
            "modes": modes,
            "generations": self._library.open_generations(),
            "page_of": page_of,
            "brief": self._brief,
        }


def page_of(item: Item) -> str:
    """The address of an item's page."""
    return f"/item/{item.corpus}/{item.row['id']}"


def by_other_name(library: Library, corpus: str, column: str, value: str) -> str:
    """The address of the page of the item that has `value` in `column`. Raises RefusedError."""
    return f"/item/{corpus}/{named(library, corpus, column, value)}"
