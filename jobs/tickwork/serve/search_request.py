"""What a request asks, read out of its query string, within bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import urlencode

Mode = Literal["words", "meaning", "both"]

MAX_QUERY = 500
"""Characters."""
MAX_FILTERS = 10
MAX_FILTER = 300
MAX_OFFERED = 150
"""Characters of a filter that is offered on a page: its text is in many links."""
PAGE = 10
MAX_LIMIT = 100
MAX_OFFSET = 10_000
MODES: tuple[Mode, ...] = ("both", "words", "meaning")
KNOWN = ("q", "mode", "in", "f", "limit", "offset")


class RefusedError(Exception):
    """A request that is not answered: its HTTP status, and a sentence for whoever sent it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search, or without a text a walk through the items."""

    text: str = ""
    mode: Mode = "both"
    corpus: str = ""
    """Empty for all of them."""
    filters: tuple[str, ...] = ()
    limit: int = PAGE
    offset: int = 0

    def url(self, path: str, **changes: object) -> str:
        """The address of this request at `path`, with other values for some of its parts."""
        other = replace(self, **{"offset": 0, **changes})  # type: ignore[arg-type]
        plain = SearchRequest()
        pairs = [("q", other.text), ("mode", other.mode)]
        pairs += [("in", other.corpus)] if path != f"/browse/{other.corpus}" else []
        pairs += [("f", one) for one in other.filters]
        pairs += [("limit", str(other.limit)), ("offset", str(other.offset))]
        said = {"mode": plain.mode, "limit": str(plain.limit), "offset": "0"}
        query = urlencode([(name, value) for name, value in pairs if value and said.get(name) != value])
        return f"{path}?{query}" if query else path

    def with_filter(self, path: str, text: str) -> str:
        """The address of this request with one filter more, or less where it has it; empty when that is too much."""
        if text in self.filters:
            return self.url(path, filters=tuple(one for one in self.filters if one != text))
        if len(self.filters) == MAX_FILTERS or len(text) > MAX_OFFERED:
            return ""
        return self.url(path, filters=(*self.filters, text))


def read(arguments: Mapping[str, Sequence[str]], corpora: Sequence[str], known: Sequence[str] = KNOWN) -> SearchRequest:
    """The question of a query string, which may have the `known` arguments. Raises RefusedError with 400 or 404."""
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise RefusedError(400, f"{unknown[0][:40]!r} is not a known parameter; they are {', '.join(known)}")
    for name, values in arguments.items():
        if name != "f" and len(values) > 1:
            raise RefusedError(400, f"{name} is given {len(values)} times")
    text, mode = _one(arguments, "q").strip(), _one(arguments, "mode", "both")
    if len(text) > MAX_QUERY:
        raise RefusedError(400, f"the query has {len(text)} characters; at most {MAX_QUERY} are allowed")
    if mode not in MODES:
        raise RefusedError(400, f"there is no mode {mode[:40]!r}; the modes are {', '.join(MODES)}")
    corpus = _one(arguments, "in")
    if corpus and corpus not in corpora:
        raise RefusedError(
            404, f"there is nothing called {corpus[:40]!r}; there are {', '.join(corpora) or 'none yet'}"
        )
    given = arguments.get("f", ())
    if len(given) > MAX_FILTERS:
        raise RefusedError(400, f"{len(given)} filters are too many; at most {MAX_FILTERS} are allowed")
    if any(len(one) > MAX_FILTER for one in given):
        raise RefusedError(400, f"a filter has more than {MAX_FILTER} characters")
    return SearchRequest(
        text=text,
        mode=mode,
        corpus=corpus,
        filters=tuple(dict.fromkeys(one for one in given if one)),
        limit=_number(arguments, "limit", PAGE, 1, MAX_LIMIT),
        offset=_number(arguments, "offset", 0, 0, MAX_OFFSET),
    )


def _one(arguments: Mapping[str, Sequence[str]], name: str, default: str = "") -> str:
    return next(iter(arguments.get(name, ())), default)


def _number(arguments: Mapping[str, Sequence[str]], name: str, default: int, least: int, most: int) -> int:
    text = _one(arguments, name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise RefusedError(400, f"{name} must be a number from {least} to {most}")
    return int(text)
