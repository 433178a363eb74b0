"""From what a person types to a full-text query that cannot fail."""

from __future__ import annotations

import re

MAX_WORDS = 64
"""Words of a query that are looked for; a longer one is a text, whose first words say enough."""

# An accent may be a character of its own; in the index it belongs to its letter.
_WORD = re.compile(r"[\w\u0300-\u036f]+")
_PHRASE_OR_WORD = re.compile(rf'"([^"]*)"|({_WORD.pattern})')


def match_expression(query: str) -> str:
    """The FTS5 expression for any of the query's words, "phrases" as a whole; empty when there is no word in it.

    Any and not all: with all, long queries find nothing, and BM25 puts what has most of the words first.
    """
    terms: dict[str, None] = {}
    for phrase, word in _PHRASE_OR_WORD.findall(query):
        words = _WORD.findall(phrase) if phrase else [word] if word else []
        if words:
            terms[f'"{" ".join(words)}"'] = None
    return " OR ".join(list(terms)[:MAX_WORDS])
