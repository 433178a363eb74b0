"""The pages: home and results, browsing, an item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tickwork.serve.answer import Item, answer, find, named, similar
from tickwork.serve.extension import Extension, Shown
from tickwork.serve.question import MAX_OFFSET, MODES, Question, read
from tickwork.serve.render import render, shorten
from tickwork.serve.shelves import Library

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

    def __init__(self, library: Library, extensions: Mapping[str, Extension]) -> None:
        """`extensions` by the name of the corpus."""
        self._library = library
        self._extensions = extensions

    def home(self, arguments: Arguments) -> str:
        """The search box and what there is; with a query, what was found."""
        question = read(arguments, list(self._library.shelves))
        if question.text:
            return self._results(question, "/")
        if question.filters:
            names = list(self._library.editions())
            corpus = question.corpus or (names[0] if len(names) == 1 else "")
            return self._results(replace(question, corpus=corpus), f"/browse/{corpus}")
        return render("home.html", question=question, **self._common())

    def browse(self, corpus: str, arguments: Arguments) -> str:
        """The items of one corpus, newest first."""
        question = read({**arguments, "in": [corpus]}, list(self._library.shelves))
        if question.text:
            return self._results(question, "/")
        return self._results(question, f"/browse/{corpus}")

    def item(self, corpus: str, item: int) -> str:
        """An item and what is most similar to it."""
        found = find(self._library, corpus, item)
        text = found.row["text"] or ""
        begins = text.encode()[:MAX_TEXT].decode(errors="ignore")
        return render(
            "item.html",
            question=Question(corpus=corpus),
            item=found,
            text=begins,
            is_whole=begins == text,
            fields={name: self._all_shown(corpus, name, values) for name, values in found.fields.items()},
            similar=similar(found, HOW_MANY_SIMILAR),
            **self._common(),
        )

    def error(self, status: int, message: str) -> str:
        """A page that says what is wrong with a request."""
        return render("error.html", question=Question(), status=status, message=message, **self._common())

    def _results(self, question: Question, path: str) -> str:
        question = replace(question, limit=min(question.limit, MAX_ON_PAGE))
        found = answer(self._library, question)
        last = min(found.total, MAX_OFFSET)
        following, previous = question.offset + question.limit, max(0, question.offset - question.limit)
        return render(
            "results.html",
            question=question,
            found=found,
            path=path,
            following=question.url(path, offset=following) if following < last else "",
            previous=question.url(path, offset=previous) if question.offset else "",
            **self._common(),
        )

    def _all_shown(self, corpus: str, name: str, values: Sequence[str]) -> list[Shown]:
        shown = [self._shown(corpus, name, one) for one in values[:VALUES_OF_FIELD]]
        more = len(values) - len(shown)
        return [*shown, Shown(f"… and {more} more")] if more else shown

    def _shown(self, corpus: str, name: str, value: str) -> Shown:
        extension = self._extensions.get(corpus, Extension())
        return extension.shown[name](value) if name in extension.shown else Shown(value)

    def _brief(self, item: Item) -> list[str]:
        """What stands below the title of an item in a list: its main fields, the first few values of each."""
        fields, extension = item.fields, self._extensions.get(item.corpus, Extension())
        return [
            "; ".join(shorten(value, SHORT) for value in fields[name][:VALUES_IN_BRIEF])
            for name in extension.brief
            if name in fields
        ]

    def _common(self) -> dict[str, object]:
        modes = [(mode, NAMES[mode]) for mode in MODES]
        return {"modes": modes, "editions": self._library.editions(), "page_of": page_of, "brief": self._brief}


def page_of(item: Item) -> str:
    """The address of an item's page."""
    return f"/item/{item.corpus}/{item.row['id']}"


def by_other_name(library: Library, corpus: str, column: str, value: str) -> str:
    """The address of the page of the item that has `value` in `column`. Raises RefusedError."""
    return f"/item/{corpus}/{named(library, corpus, column, value)}"
