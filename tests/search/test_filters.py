"""Filters: what they let through, and that no text in one can do harm."""

from __future__ import annotations

import json
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kits.vectors import DOAB
from tickwork.contract.outcomes import OperatorError
from tickwork.search.filters import Filter, condition, parse

ITEMS = [
    (1, 2015, "eng", ["History", "Bees"], "O'Reilly"),
    (2, 2020, "ger", ["History"], 'Say "Open" Press'),
    (3, None, "eng", [], "100 % Press"),
    (4, 1999, "", ["Bees; wasps"], "Größenwahn"),
]


@pytest.fixture(scope="module")
def items() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    columns = ", ".join(f"{field.name} {'NUMERIC' if field.kind == 'number' else 'TEXT'}" for field in DOAB.fields)
    connection.execute(f"CREATE TABLE items (id INTEGER PRIMARY KEY, {columns})")
    for number, year, language, subjects, publisher in ITEMS:
        connection.execute(
            "INSERT INTO items (id, year, language, subjects, publisher, creators, isbns) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (number, year, language, json.dumps(subjects, ensure_ascii=False), publisher, "[]", "[]"),
        )
    return connection


def passing(items: sqlite3.Connection, *filters: str) -> list[int]:
    sql, values = condition(DOAB, parse(DOAB, filters))
    return [row[0] for row in items.execute(f"SELECT id FROM items WHERE {sql} ORDER BY id", values)]


@pytest.mark.parametrize(
    ("filters", "through"),
    [
        ([], [1, 2, 3, 4]),
        (["language=eng"], [1, 3]),
        ([" language = eng "], [1, 3]),
        (["language=ENG"], []),
        (["language="], [4]),
        (["year=2015"], [1]),
        (["year>=2015"], [1, 2]),
        (["year<=2015"], [1, 4]),
        (["year>=2015", "year<=2019"], [1]),
        (["year=2015.0"], [1]),
        (["year>=-5"], [1, 2, 4]),
        (["subjects=History"], [1, 2]),
        (["subjects=Bees"], [1]),
        (["subjects=History", "subjects=Bees"], [1]),
        (["subjects=Bees; wasps"], [4]),
        (["subjects=Hist"], []),
        (["subjects=History", "language=ger"], [2]),
        (["publisher=O'Reilly"], [1]),
        (['publisher=Say "Open" Press'], [2]),
        (["publisher=100 % Press"], [3]),
        (["publisher=Größenwahn"], [4]),
        (["publisher=a=b"], []),
    ],
)
def test_filters_let_through_what_they_say(items: sqlite3.Connection, filters: list[str], through: list[int]) -> None:
    assert passing(items, *filters) == through


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is not a filter; write FIELD=VALUE"),
        ("language", "'language' is not a filter"),
        ("=eng", "'=eng' is not a filter"),
        ("language<eng", "is not a filter"),
        ("subjects!=x", "is not a filter"),
        ("lang=eng", "doab has no field 'lang'; the fields are: creators, subjects, publisher, year, language, type"),
        ("id=1", "doab has no field 'id'"),
        ("rowid=1", "no field 'rowid'"),
        ("1=1 OR title=x", "doab has no field '1'"),
        ("year=MMXV", "year is a number, but 'MMXV' is not"),
        ("year=", "year is a number, but '' is not"),
        ("year=٢٠١٥", "year is a number"),
        ("year=1e3", "year is a number"),
        ("year=" + "9" * 400, "year is a number"),
        ("year==2015", "year is a number, but '=2015' is not"),
        ("language>=eng", "language is a text: use =, not >="),
        ("subjects<=x", "subjects is a text"),
    ],
)
def test_what_is_no_filter_is_told_with_what_would_be(text: str, says: str) -> None:
    with pytest.raises(OperatorError) as told:
        parse(DOAB, [text])
    assert says in str(told.value)


HOSTILE = [
    "'",
    '"',
    "'; DROP TABLE items; --",
    "\0",
    "\ud800",
    "%",
    "_",
    "[",
    "{}",
    '["History"]',
    "NULL",
    "a" * 10_000,
]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("field", ["language", "subjects", "creators"])
def test_hostile_values_are_values(items: sqlite3.Connection, field: str, value: str) -> None:
    assert passing(items, f"{field}={value}") == []
    assert passing(items) == [1, 2, 3, 4]


@given(st.text(st.characters(categories=("Cs",)) | st.characters()))
def test_any_text_is_a_filter_or_an_error_that_says_so(text: str) -> None:
    try:
        (found,) = parse(DOAB, [text])
    except OperatorError:
        return
    assert isinstance(found, Filter)
    assert found.field in {field.name for field in DOAB.fields}
    found.value.encode()
