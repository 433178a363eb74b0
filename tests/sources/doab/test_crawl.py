"""A crawl of a server that tells no sizes: only its tokens and its pages can betray it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tickwork.contract.outcomes import Halt
from tickwork.sources.doab.crawl import MAX_EMPTY_PAGES, MAX_RESTARTS, Plan, crawl
from tickwork.sources.doab.crawl_state import CrawlState, Origin
from tickwork.sources.doab.errors import OaiError
from tickwork.sources.doab.response import Identity, Page, Record, Token
from tickwork.sources.doab.settings import DoabSettings
from tickwork.sources.doab.store import DoabStore

NOW = "2026-10-05T12:00:00Z"
ORIGIN = Origin(base_url="http://example.org/oai", prefix="oai_dc", set="")


class Script:
    """A client that gives pages by their token: the identifiers, and the token that follows."""

    base_url = "http://example.org/oai"

    def __init__(self, pages: dict[str, tuple[str, str]], size: int | None = None) -> None:
        self.pages, self.size = pages, size
        self.asked: list[str] = []

    def identify(self) -> Identity:
        return Identity(NOW, "2020-01-01T00:00:00Z", day_granularity=False)

    def page(self, verb: str, first: str, last: str, token: str) -> tuple[Page, int]:
        self.asked.append(token)
        if token not in self.pages:
            raise OaiError("badResumptionToken", token)
        identifiers, following = self.pages[token]
        records = [Record(f"oai:x:{name}", "2025-01-01T00:00:00Z", deleted=False) for name in identifiers]
        return Page(NOW, records, Token(following) if following else None, self.size), 100


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DoabStore]:
    with DoabStore.open(tmp_path / "doab.db", DoabSettings().pattern()) as opened:
        yield opened


def read(store: DoabStore, script: Script) -> list[str]:
    """Read the list to its end; gives the warnings."""
    warnings: list[str] = []
    plan = Plan("ListIdentifiers", ORIGIN, lambda identity: (identity.earliest, NOW), 5000, 0.02)
    for _ in crawl(store, script, plan, lambda records: None, warnings.append):  # type: ignore[arg-type]
        assert len(script.asked) < 200, "it never ends"
    return warnings


def seen(store: DoabStore) -> set[str]:
    return {identifier[-1] for identifier, _ in CrawlState(store.connection, "ListIdentifiers").seen(deleted=False)}


class Timely(Script):
    """Its clock shows `now`, and every token lives until `expires`."""

    now, expires = NOW, ""

    def page(self, verb: str, first: str, last: str, token: str) -> tuple[Page, int]:
        page, size = super().page(verb, first, last, token)
        following = Token(page.token.value, self.expires) if page.token else None
        return Page(self.now, page.records, following, self.size), size


@pytest.mark.parametrize(
    ("now", "expires"),
    [
        ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),  # a life that ends beyond the years there are
        (NOW, "9999-12-31T23:59:59-14:00"),
        (NOW, "0001-01-01T00:00:00+14:00"),
        (NOW, "never"),
    ],
)
def test_a_token_with_an_absurd_end_is_used_like_any_other(store: DoabStore, now: str, expires: str) -> None:
    script = Timely({"": ("abc", "t1"), "t1": ("de", "")}, 5)
    script.now, script.expires = now, expires
    assert read(store, script) == []
    assert script.asked == ["", "t1"]
    assert seen(store) == set("abcde")


def test_a_list_in_good_order_is_read_once(store: DoabStore) -> None:
    script = Script({"": ("ab", "t1"), "t1": ("cd", "t2"), "t2": ("e", "")})
    assert read(store, script) == []
    assert script.asked == ["", "t1", "t2"]
    assert seen(store) == set("abcde")


@pytest.mark.parametrize(
    ("pages", "why"),
    [
        ({"": ("ab", "t1"), "t1": ("cd", "t1")}, "gave a resumption token twice"),
        ({"": ("ab", "t1"), "t1": ("cd", "t2"), "t2": ("ef", "t1")}, "gave a resumption token twice"),
        ({"": ("ab", "t1"), "t1": ("cd", "t2"), "t2": ("cd", "t3"), "t3": ("ef", "")}, "repeated a page"),
        ({"": ("ab", "t1"), "t1": ("ab", "")}, "repeated a page"),
    ],
)
def test_a_list_that_goes_in_circles_halts_after_a_few_readings(
    pages: dict[str, tuple[str, str]], why: str, store: DoabStore
) -> None:
    script = Script(pages)
    with pytest.raises(Halt, match=why):
        read(store, script)
    assert script.asked.count("") == MAX_RESTARTS + 1
    assert not any(row[0] for row in store.connection.execute("SELECT done FROM windows"))


def test_empty_pages_are_borne_for_a_while_and_not_for_ever(store: DoabStore) -> None:
    few = {f"t{n}": ("", f"t{n + 1}") for n in range(1, MAX_EMPTY_PAGES)}
    script = Script({"": ("ab", "t1"), **few, f"t{MAX_EMPTY_PAGES}": ("cd", "")})
    assert read(store, script) == []
    assert seen(store) == set("abcd")


def test_empty_pages_without_end_halt(store: DoabStore) -> None:
    script = Script({"": ("ab", "t1"), **{f"t{n}": ("", f"t{n + 1}") for n in range(1, 60)}})
    with pytest.raises(Halt, match="empty pages in a row"):
        read(store, script)


def test_a_list_twice_as_short_as_told_is_taken_only_within_the_share_of_a_miscount(store: DoabStore) -> None:
    letters = "abcdefghij"
    assert read(store, Script({"": (letters, "")}, size=11))[-1].endswith("the server miscounts")
    with store.transaction():
        CrawlState(store.connection, "ListIdentifiers").drop()
    with pytest.raises(Halt, match="10 identifiers, but the server counts 12"):
        read(store, Script({"": (letters, "")}, size=12))


def test_a_halted_crawl_tries_as_often_again_after_a_rearm(store: DoabStore) -> None:
    script = Script({"": ("ab", "t1"), "t1": ("cd", "t1")})
    for _ in range(2):
        script.asked.clear()
        with pytest.raises(Halt):
            read(store, script)
        assert script.asked.count("") == MAX_RESTARTS + 1
    mended = Script({"": ("ab", "t1"), "t1": ("cd", "")})
    read(store, mended)
    assert seen(store) == set("abcd")
