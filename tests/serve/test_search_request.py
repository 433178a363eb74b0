"""What a query string asks: bounds, refusals, and addresses that ask the same again."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork.serve.search_request import (
    KNOWN,
    MAX_FILTER,
    MAX_FILTERS,
    MAX_LIMIT,
    MAX_OFFERED,
    MAX_OFFSET,
    MAX_QUERY,
    MODES,
    RefusedError,
    SearchRequest,
    read,
)

CORPORA = ["doab", "peertube"]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
QUESTIONS = st.builds(
    SearchRequest,
    text=TEXT.map(str.strip),
    mode=st.sampled_from(MODES),
    corpus=st.sampled_from(["", *CORPORA]),
    filters=st.lists(TEXT.filter(bool), max_size=MAX_FILTERS, unique=True).map(tuple),
    limit=st.integers(1, MAX_LIMIT),
    offset=st.integers(0, MAX_OFFSET),
)


def asked(url: str) -> SearchRequest:
    return read(parse_qs(urlsplit(url).query, keep_blank_values=True), CORPORA)


def test_nothing_asked_is_the_plain_question() -> None:
    assert read({}, CORPORA) == SearchRequest()
    assert read({name: [""] for name in ("q", "in", "f")}, CORPORA) == SearchRequest()


@pytest.mark.parametrize("name", ["mode", "limit", "offset"])
def test_what_is_one_of_a_few_or_a_number_is_never_empty(name: str) -> None:
    with pytest.raises(RefusedError) as refused:
        read({name: [""]}, CORPORA)
    assert refused.value.status == 400


@given(QUESTIONS)
def test_the_address_of_a_question_asks_it_again(question: SearchRequest) -> None:
    assert asked(question.url("/", offset=question.offset)) == question


@given(QUESTIONS)
def test_another_filter_begins_at_the_first_page(question: SearchRequest) -> None:
    url = question.url("/", filters=("language=eng",))
    assert asked(url).offset == 0
    assert asked(url).filters == ("language=eng",)


@given(QUESTIONS, TEXT.filter(bool))
def test_a_filter_is_put_on_and_taken_off(question: SearchRequest, text: str) -> None:
    url = question.with_filter("/", text)
    if text in question.filters:
        assert text not in asked(url).filters
    elif len(question.filters) == MAX_FILTERS:
        assert url == "", "that would be refused"
    else:
        assert asked(url).filters == (*question.filters, text)
        assert asked(asked(url).with_filter("/", text)).filters == question.filters


def test_a_long_filter_is_not_offered() -> None:
    assert SearchRequest().with_filter("/", "x" * MAX_OFFERED)
    assert SearchRequest().with_filter("/", "x" * (MAX_OFFERED + 1)) == ""


def test_the_corpus_is_not_said_twice_in_an_address() -> None:
    assert SearchRequest(corpus="doab", offset=10).url("/browse/doab", offset=20) == "/browse/doab?offset=20"
    assert SearchRequest(corpus="doab", text="x").url("/") == "/?q=x&in=doab"


@given(st.dictionaries(st.one_of(st.sampled_from(KNOWN), TEXT), st.lists(TEXT, min_size=1, max_size=12), max_size=8))
def test_anything_else_is_read_or_refused_with_a_sentence(arguments: dict[str, list[str]]) -> None:
    question, refused = _read(arguments)
    if question is None:
        assert refused
        assert refused.status in (400, 404)
        assert 0 < len(refused.message) < 300
    else:
        assert len(question.text) <= MAX_QUERY
        assert 1 <= question.limit <= MAX_LIMIT
        assert 0 <= question.offset <= MAX_OFFSET
        assert question.corpus in ("", *CORPORA)


def _read(arguments: dict[str, list[str]]) -> tuple[SearchRequest | None, RefusedError | None]:
    try:
        return read(arguments, CORPORA), None
    except RefusedError as refused:
        return None, refused


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ({"q": ["x" * (MAX_QUERY + 1)]}, 400, "the query has 501 characters; at most 500 are allowed"),
        ({"q": ["a", "b"]}, 400, "q is given 2 times"),
        ({"mode": ["sql"]}, 400, "there is no mode 'sql'; the modes are both, words, meaning"),
        ({"in": ["books"]}, 404, "there is nothing called 'books'; there are doab, peertube"),
        ({"f": [f"year={n}" for n in range(MAX_FILTERS + 1)]}, 400, "11 filters are too many; at most 10 are allowed"),
        ({"f": ["x" * (MAX_FILTER + 1)]}, 400, "a filter has more than 300 characters"),
        ({"sql": ["SELECT 1"]}, 400, "'sql' is not a known parameter"),
        *[
            ({"limit": [n]}, 400, "limit must be a number from 1 to 100")
            for n in ("0", "101", "-1", "1.0", "٣", "x", "9" * 99)
        ],
        *[({"offset": [n]}, 400, "offset must be a number from 0 to 10000") for n in ("10001", "-1", "1e3", " 1")],
    ],
)
def test_what_is_refused_says_why(arguments: dict[str, list[str]], status: int, says: str) -> None:
    with pytest.raises(RefusedError) as refused:
        read(arguments, CORPORA)
    assert refused.value.status == status
    assert says in refused.value.message


def test_the_most_that_may_be_asked_is_answered() -> None:
    question = read(
        {"q": ["x" * MAX_QUERY], "f": ["a" * MAX_FILTER] * MAX_FILTERS, "limit": ["100"], "offset": ["10000"]}, []
    )
    assert (len(question.text), len(question.filters), question.limit) == (MAX_QUERY, 1, MAX_LIMIT)
    with pytest.raises(RefusedError, match="too many"):
        read({"f": ["a"] * (MAX_FILTERS + 1)}, [])
