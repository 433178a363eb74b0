"""From what a person types to a full-text query: it never fails, and finds what has any of the words."""

from __future__ import annotations

import sqlite3
import unicodedata
from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tickwork.search.fts_query import MAX_WORDS, match_expression

BOOKS = {
    1: "A history of beekeeping in Sicily",
    2: "The café of Zürich, and O'Brien's",
    3: "climate change policy",
    4: "change of the political climate",
    5: "NEAR and NOT: the AND of logic",
    6: "東京 蜜蜂",
    7: unicodedata.normalize("NFD", "Šahovnica für Anfänger"),
}
SURROGATES = st.text(st.characters(categories=("Cs",)) | st.characters(), max_size=40)
HOSTILE = st.text(st.sampled_from("\"'()*^:{}+-,.;\\ \t\n\0_%aäß AND OR NOT NEAR é"), max_size=40)


@cache
def index() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE books USING fts5 (text, tokenize='unicode61 remove_diacritics 2')")
    connection.executemany("INSERT INTO books (rowid, text) VALUES (?, ?)", BOOKS.items())
    return connection


def found(query: str) -> list[int]:
    expression = match_expression(query)
    if not expression:
        return []
    rows = index().execute("SELECT rowid FROM books WHERE books MATCH ? ORDER BY rowid", (expression,))
    return [row[0] for row in rows]


@given(SURROGATES | HOSTILE)
@example('"')
@example('""')
@example('"_"')
@example("a" * 100_000)
@example('"unclosed phrase')
@example("{text} : (a)")
@example("a* ^b NEAR(c d, 3) -e")
@example("\ud800")
def test_no_text_whatever_is_a_syntax_error(query: str) -> None:
    found(query)
    expression = match_expression(query)
    if expression:  # as the snippets are asked for
        index().execute("SELECT rowid FROM books WHERE books MATCH ?", (f"{{text}} : ({expression})",)).fetchall()


@pytest.mark.parametrize(
    ("query", "books"),
    [
        ("beekeeping", [1]),
        ("BEEKEEPING sicily", [1]),
        ("bees of sicily, and of zurich!", [1, 2, 4, 5]),
        ("zurich CAFE", [2]),
        ("Zu\u0308rich", [2]),
        ("O'Brien", [2]),
        ('"climate change"', [3]),
        ('"climate change" sicily', [1, 3]),
        ("climate change", [3, 4]),
        ("AND", [2, 5]),
        ("NOT climate", [3, 4, 5]),
        ("NEAR(climate policy)", [3, 4, 5]),
        ("clim*", []),
        ("text:climate", [3, 4]),
        ("東京", [6]),
        ("šahovnica", [7]),
        (unicodedata.normalize("NFD", "Anfänger"), [7]),
        ("", []),
        (" \t\n", []),
        ("!?*", []),
        ('"', []),
        ('"!"', []),
        ('"sicily', [1]),
    ],
)
def test_what_has_any_of_the_words_is_found(query: str, books: list[int]) -> None:
    assert found(query) == books


def test_a_word_with_an_accent_of_its_own_is_one_word() -> None:
    assert match_expression("cafe\u0301s") == '"cafe\u0301s"'


def test_the_same_word_twice_is_looked_for_once() -> None:
    assert match_expression('bees bees "bees"') == '"bees"'


def test_of_a_long_text_the_first_words_are_looked_for() -> None:
    words = [f"w{n}" for n in range(1000)]
    assert match_expression(" ".join(words)) == " OR ".join(f'"{word}"' for word in words[:MAX_WORDS])
