"""The pages: what they show, where they lead, and that they are small and well made."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kits.serve import ABOUT, BOOKS, Catalogue, Page, Served, served
from tests.kits.vectors import book

SMALL = 50_000
STRICT = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("pages")) as service:
        yield service


def page(service: Served, target: str) -> Page:
    answer = service.ask(target)
    assert answer.status == 200, answer.text
    assert answer.headers["content-security-policy"] == STRICT
    assert len(answer.body) < SMALL
    return answer.page


def titles(found: Page) -> list[str]:
    return found.titled(2)[:-1] if found.titled(2)[-1:] == ["Filters"] else found.titled(2)


def test_home_has_the_box_and_what_there_is(service: Served) -> None:
    home = page(service, "/")
    assert '<input id="q" name="q" type="search"' in home.html
    assert '<label for="q">Search doab</label>' in home.html
    assert "6 items, 5 of them also by meaning" in home.text
    assert home.to("doab") == "/browse/doab"
    assert 'value="both" checked' in home.html


@pytest.mark.parametrize(
    ("mode", "first"),
    [("words", ["Bees", "Wasps"]), ("meaning", ["Bees", "Hives"]), ("both", ["Bees", "Wasps"])],
)
def test_results_are_cards_of_titles_snippets_and_marked_words(service: Served, mode: str, first: list[str]) -> None:
    found = page(service, f"/?q=bees&mode={mode}")
    assert titles(found)[:1] == first[:1]
    assert first[1] in titles(found)
    assert "Bees" in found.marked
    assert f'value="{mode}" checked' in found.html
    assert 'value="bees"' in found.html, "the box keeps the query"
    assert found.to("Bees") == "/item/doab/1"


def test_a_snippet_shows_the_words_where_they_are(service: Served) -> None:
    found = page(service, "/?q=bees&mode=words")
    assert re.search(r"….*At last a word on bees\.", found.text)


def test_counts_lead_to_what_they_count(service: Served) -> None:
    found = page(service, "/?q=bees&mode=words")
    narrowed = page(service, found.to("eng"))
    assert titles(narrowed) == ["Bees"]
    assert "language=eng ×" in narrowed.text
    assert titles(page(service, narrowed.to("language=eng ×"))) == titles(found), "and back"


def test_browsing_is_newest_first_with_counts_and_exports(service: Served) -> None:
    browse = page(service, "/browse/doab")
    assert titles(browse) == [BOOKS[n]["title"] for n in (6, 5, 4, 3, 2, 1)]
    assert "6 items, newest first" in browse.text
    for name in ("table", "CSV", "JSON"):
        assert service.ask(browse.to(name)).status == 200
    csv = service.ask(browse.to("CSV"))
    assert csv.headers["content-type"].startswith("text/plain")
    assert csv.text.count("oai:directory.doabooks.org:") == 6
    narrowed = page(service, browse.to("eng"))
    assert titles(narrowed) == ["Without vector", "Bees"]
    assert page(service, narrowed.to("language=eng ×")).text == browse.text


def test_filters_without_a_query_browse(service: Served) -> None:
    found = page(service, "/?f=language=eng")
    assert titles(found) == ["Without vector", "Bees"]
    assert found.to("table") == "/doab/items", "never //items, which is a server"


def test_numbers_are_filtered_by_bounds(service: Served) -> None:
    found = page(service, f"/browse/doab?{urlencode([('f', 'year>=2012'), ('f', 'year<=2019')])}")
    assert titles(found) == ["Wasps"]


def test_pages_follow_each_other(service: Served) -> None:
    seen, target = [], "/browse/doab?limit=4"
    first = page(service, target)
    assert "Previous" not in first.text
    seen += titles(first)
    second = page(service, first.to("Next"))
    assert "Next" not in second.text
    seen += titles(second)
    assert seen == titles(page(service, "/browse/doab"))
    assert page(service, second.to("Previous")).html == first.html


def test_an_item_shows_its_fields_and_those_like_it(service: Served) -> None:
    item = page(service, "/item/doab/1")
    assert item.titled(1) == ["Bees"]
    assert item.titled(3)[0] == "Hives", "the most similar"
    assert item.to("Hives") == "/item/doab/2"
    assert item.to("At its source") == "https://directory.doabooks.org/handle/20.500.12854/1"
    assert service.ask(item.to("JSON")).json()["title"] == "Bees"
    assert service.ask(item.to("row")).status == 200


def test_an_item_without_a_vector_has_none_like_it(service: Served) -> None:
    assert page(service, "/item/doab/5").titled(2) == []


def test_a_book_is_found_by_its_handle(service: Served) -> None:
    answer = service.ask("/handle/20.500.12854/3")
    assert (answer.status, answer.headers["location"]) == (302, "/item/doab/3")
    answer = service.ask("/handle/20.500.12854/33")
    assert answer.status == 404
    assert "There is no item with the handle" in answer.page.text


def test_a_title_in_another_script_is_shown_as_it_is(service: Served) -> None:
    found = page(service, f"/?q={quote('蜜蜂')}&mode=meaning")
    assert "蜜蜂" in titles(found)
    assert 'value="蜜蜂"' in found.html


def test_nothing_found_says_so(service: Served) -> None:
    found = page(service, "/?q=xylophone&mode=words")
    assert "Nothing was found." in found.text
    assert titles(found) == []


@pytest.mark.parametrize(
    ("target", "status", "says"),
    [
        ("/?q=" + "x" * 501, 400, "the query has 501 characters"),
        ("/?mode=sql", 400, "there is no mode"),
        ("/?limit=0&q=x", 400, "limit must be a number"),
        ("/?f=colour%3Dred", 400, "doab has no field"),
        ("/?f=nonsense", 400, "is not a filter"),
        ("/?f=year%3D%3C1", 400, "year is a number"),
        ("/?in=books&q=x", 404, "there is nothing called"),
        ("/browse/books", 404, "there is nothing called"),
        ("/browse/", 404, "nothing at this address"),
        ("/item/doab/99", 404, "there is no item 99"),
        ("/item/books/1", 404, "there is no item 1"),
        ("/item/doab/one", 404, "nothing at this address"),
        ("/item/doab/1/", 404, "nothing at this address"),
    ],
)
def test_a_refusal_is_a_page_that_says_why_and_still_searches(
    service: Served, target: str, status: int, says: str
) -> None:
    answer = service.ask(target)
    assert answer.status == status
    assert answer.headers["content-security-policy"] == STRICT
    assert says.casefold() in answer.page.text.casefold()
    assert 'role="search"' in answer.text


def test_the_stylesheet_is_kept_and_everything_else_is_not(service: Served) -> None:
    (path,) = re.findall(r'<link rel="stylesheet" href="([^"]+)">', page(service, "/").html)
    style = service.ask(path)
    assert (style.status, style.headers["content-type"]) == (200, "text/css; charset=utf-8")
    assert "immutable" in style.headers["cache-control"]
    assert "url(" not in style.text
    assert "immutable" not in service.ask("/").headers.get("cache-control", "")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pairs=st.lists(
        st.tuples(
            st.sampled_from(["q", "q", "f", "f", "mode", "limit", "offset", "in", "sql", "_where", "\0"]),
            st.one_of(
                st.text(max_size=80),
                st.binary(max_size=60),
                st.sampled_from(
                    ["words", "both", "doab", "1", "language=eng", "year>=2000", '"', "<script>", "a" * 600]
                ),
            ),
        ),
        max_size=6,
    ),
    path=st.sampled_from(["/", "/browse/doab", "/item/doab/1", "/item/doab/77"]),
)
def test_any_query_string_gives_a_well_made_page(
    service: Served, pairs: list[tuple[str, str | bytes]], path: str
) -> None:
    query = urlencode([(name, v.encode("utf-8", "surrogatepass") if isinstance(v, str) else v) for name, v in pairs])
    answer = service.ask(f"{path}?{query}")
    assert answer.status in (200, 400, 404, 414)
    if answer.status != 414:
        assert answer.page


@pytest.mark.slow
def test_a_hundred_items_of_long_text_make_a_small_page(tmp_path: Path) -> None:
    deployment = Catalogue(tmp_path)
    many = {
        number: {
            **book(number),
            "title": f"Number {number}: " + ("a long title of many words " * 40 if number % 2 else "蜜" * 3000),
            "description": "bees " * 2000 if number % 2 else "蜜" * 30_000,
            "creators": [f"Author {n}, of a Name that goes on and on, and further on still" for n in range(500)],
            "subjects": [f"{n} {'蜜' * 140}" for n in range(40)],
            "publisher": f"Publisher {number} {'蜜' * 500}",
            "vector": ABOUT[number % 8],
        }
        for number in range(1, 101)
    }
    deployment.publish(many)
    with Served(deployment.library()) as service:
        for target in ("/browse/doab?limit=100", "/?q=bees&mode=words&limit=100", "/item/doab/1", "/item/doab/2"):
            page(service, target)
        assert len(service.ask("/api/search?q=bees&mode=words&limit=100").json()["results"]) == 50
        assert len(service.ask("/api/items/doab/1").json()["fields"]["creators"]) == 500, "the API gives all"
        whole = page(service, "/item/doab/1")
        assert "… and 470 more" in whole.text
        assert len(service.ask(page(service, "/item/doab/2").to("The whole text")).json()["text"]) == 30_000
