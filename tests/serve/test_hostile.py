"""Whatever stands in a field or comes in a request: nothing executes, nothing is executed, and refusals are clear."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from urllib.parse import quote, urlencode, urlsplit

import pytest

from tests.kits.serve import ABOUT, Answer, Catalogue, ModelByHand, Served
from tickwork.corpus.display import Shown
from tickwork.serve.render import plain, render, safe_url
from tickwork.serve.security_headers import MAX_ADDRESS
from tickwork.sources.doab.display import DISPLAY

EVIL = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title><script>alert(1)</script>",
    "</textarea></select><svg onload=alert(1)>",
    "<!--",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "'; DROP TABLE items; --",
    '" OR 1=1 --',
    "\x01<script>\x02\x01",
    "a\x00b\x1b[2Jc\x7f\x85",
    "\u202egnp.exe\u2066",
    "&lt;script&gt;&#x3c;",
    "../../../etc/passwd",
    "//evil.example/",
    "%00%0d%0aSet-Cookie:%20a=b",
    "\r\nSet-Cookie: a=b\r\n\r\n",
)
FOUND_BY = "findme"

# Datasette leaves some of its work undone when an argument is wrong.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Every text of every book is hostile."""
    deployment = Catalogue(tmp_path_factory.mktemp("hostile"))
    deployment.publish(
        {
            number: {
                "title": evil,
                "description": f"{evil} {FOUND_BY} {evil}",
                "creators": [evil, f"{evil} again"],
                "subjects": [evil],
                "publisher": evil,
                "language": evil,
                "type": evil,
                "licence": evil,
                "isbns": [evil],
                "doi": evil,
                "handle": evil,
                "identifier": f"{number} {evil}",
                "vector": ABOUT[number % 8],
            }
            for number, evil in enumerate(EVIL, 1)
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        ModelByHand(patch)
        with Served(deployment.library()) as service:
            service.until(lambda: service.health()["meaning"] == "ready")
            yield service


def judged(answer: Answer) -> Answer:
    """A page in which nothing runs, whatever it shows."""
    assert "script" not in answer.headers["content-security-policy"]
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "set-cookie" not in answer.headers
    page = answer.page  # no script, handler, inline style, javascript: address or comment
    assert "49" not in page.text or "{{ 7 * 7 }}" in page.text, "a template in a field was run"
    return answer


@pytest.mark.parametrize("number", range(1, len(EVIL) + 1))
def test_an_item_shows_what_it_is_called_and_runs_none_of_it(service: Served, number: int) -> None:
    answer = judged(service.ask(f"/item/doab/{number}"))
    assert answer.status == 200
    shown = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", "\ufffd", EVIL[number - 1])
    assert "".join(shown.split()) in "".join(answer.page.titled(1)[0].split())


@pytest.mark.parametrize(
    "target",
    ["/browse/doab?limit=20", f"/?q={FOUND_BY}&limit=20", f"/?q={FOUND_BY}&mode=words", f"/?q={FOUND_BY}&mode=meaning"],
)
def test_lists_of_hostile_items_run_nothing(service: Served, target: str) -> None:
    answer = judged(service.ask(target))
    assert answer.status == 200
    assert len(answer.page.titled(2)) >= 11


def test_hostile_values_can_be_filtered_by(service: Served) -> None:
    links = [url for url, _ in service.ask("/browse/doab").page.links if "f=" in url]
    assert len(links) >= 30
    for url in links:
        answer = judged(service.ask(url))
        assert answer.status == 200
        # Where a value begins or ends with blanks a filter does not.
        assert "items, newest first" in answer.page.text or "%0D%0A" in url


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("mode", ["words", "both", "meaning"])
def test_a_hostile_query_is_only_words(service: Served, evil: str, mode: str) -> None:
    answer = judged(service.ask(f"/?{urlencode({'q': evil, 'mode': mode})}"))
    assert answer.status == 200
    said = service.ask(f"/api/search?{urlencode({'q': evil, 'mode': mode})}")
    assert said.status == 200
    assert said.headers["content-type"] == "application/json; charset=utf-8"
    assert said.json()["query"] == evil.strip()


@pytest.mark.parametrize("evil", EVIL)
def test_hostile_filters_corpora_and_modes_are_refused_by_a_page(service: Served, evil: str) -> None:
    for name in ("f", "mode", "in", "limit", evil):
        answer = judged(service.ask(f"/?{urlencode({name: evil, 'q': 'x'})}"))
        assert answer.status in (400, 404)


@pytest.mark.parametrize(
    "query", [b"q=%ff%fe%00%80", b"q=%", b"q=%zz", b"q=%f0%28%8c%bc", b"&&&=;=&", b"q=+%09%0a", b"f=%00=%00"]
)
def test_binary_queries_are_answered_or_refused(service: Served, query: bytes) -> None:
    answer = judged(service.ask(b"/?" + query))
    assert answer.status in (200, 400)
    assert service.ask(b"/api/search?" + query).status in (200, 400)


@pytest.mark.parametrize("target", [b"/?q=\x00", b"/?q=\xff", b"/\xc3\xa9", b"/?q=a b", b"/\t", b"/?q=\r\nx: y"])
def test_bytes_that_no_address_has_are_refused(service: Served, target: bytes) -> None:
    assert service.ask(target).status == 400


def test_a_huge_address_is_refused(service: Served) -> None:
    for target in ("/?q=" + "x" * MAX_ADDRESS, "/" + "x" * MAX_ADDRESS, "/browse/doab?" + "f=a&" * MAX_ADDRESS):
        answer = service.ask(target)
        assert (answer.status, answer.headers["content-type"]) == (414, "text/plain; charset=utf-8")
    assert service.ask("/browse/doab?" + "&" * (MAX_ADDRESS - 20)).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get"])
@pytest.mark.parametrize("target", ["/", "/api/search?q=x", "/doab/items", "/-/logout"])
def test_everything_is_read_only(service: Served, method: str, target: str) -> None:
    answer = service.ask(target, method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


# Paths.

ELSEWHERE = (
    *("//evil.example", "//evil.example/", "//evil.example/%2e%2e", "/\\evil.example", "/\\evil.example/"),
    *("/%2fevil.example/", "/%2f%2fevil.example/", "/%5cevil.example/", "/%5c/evil.example/", "/%09/evil.example/"),
    *("/item//evil.example/", "/.//evil.example/", "/..//evil.example/", "///evil.example/", "/%2e/evil.example//"),
    *("/doab//evil.example/", "/@evil.example/", "/http://evil.example/", "/%68ttp://evil.example/", "/nothing/"),
    *("/-/static//evil.example/", "/handle//evil.example/", "/%0d%0alocation:%20http://evil.example/"),
)


@pytest.mark.parametrize("target", ELSEWHERE)
def test_no_path_leads_to_another_server(service: Served, target: str) -> None:
    answer = service.ask(target)
    assert answer.status in (302, 400, 404)
    if location := answer.headers.get("location"):
        assert re.match(r"/[^/\\]", location), location
        assert not urlsplit(location).netloc
        assert not re.search(r"[\x00-\x20\\]", location)


@pytest.mark.parametrize(
    "target",
    [
        *("/-/static/../../../../etc/passwd", "/-/static/..%2f..%2f..%2fetc%2fpasswd", "/-/static/%2e%2e/app.py"),
        *("/assets/../app.py", "/assets/..%2f..%2fservice.py", "/..%2f..%2fetc/passwd", "/%2e%2e/%2e%2e/etc/passwd"),
        *("/-/static//etc/passwd", "/-/static/%2fetc%2fpasswd", "/-/static/app.css%00.js", "/item/doab/1%00"),
        *("/item/doab/..%2f..%2fetc", "/browse/..%2fdoab", "/api/items/doab/1%2f..%2f2", "/handle/../../etc/passwd"),
        *("/doab/items/..%2f1", "/doab.db", "/doab.db%00", "/doab~2Edb", "/%64oab.db", "/similar", "/near/similar"),
    ],
)
def test_no_path_leads_to_a_file(service: Served, target: str) -> None:
    answer = service.ask(target)
    for _ in range(3):
        if answer.status not in (301, 302):
            break
        answer = service.ask(answer.headers["location"])
    assert answer.status in (400, 403, 404), answer.text
    assert "root:" not in answer.text
    assert not answer.body.startswith(b"SQLite format 3")


# Datasette.


@pytest.mark.parametrize(
    "target",
    [
        "/doab?sql=select+1",
        "/doab.json?sql=select+1",
        "/doab.csv?sql=select+1",
        "/doab/items?_where=1%3D1",
        "/doab/items.json?_where=id+in+(select+1)",
        "/_internal",
        "/_internal/databases",
        "/_memory?sql=select+1",
        "/:memory:?sql=select+1",
    ],
)
def test_arbitrary_sql_is_off(service: Served, target: str) -> None:
    answer = service.ask(target)
    for _ in range(3):
        if answer.status not in (301, 302):
            break
        answer = service.ask(answer.headers["location"])
    assert answer.status in (400, 403, 404), answer.text[:500]


@pytest.mark.parametrize(
    "name",
    [
        "databases",
        "threads",
        "plugins",
        "settings",
        "versions",
        "metadata",
        "patterns",
        "allow-debug",
        "permissions",
        "messages",
        "auth-token",
        "actor",
        "config",
        "logout",
    ],
)
@pytest.mark.parametrize("suffix", ["", ".json"])
def test_pages_about_the_inside_are_off(service: Served, name: str, suffix: str) -> None:
    assert service.ask(f"/-/{name}{suffix}").status == 404


def test_the_databases_cannot_be_written(service: Served) -> None:
    async def write() -> None:
        for database in service.service.datasette.databases.values():
            if database.name != "_internal":
                await database.execute("DELETE FROM items")

    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        service.do(write())


@pytest.mark.parametrize("number", range(1, len(EVIL) + 1))
def test_datasette_escapes_as_well(service: Served, number: int) -> None:
    answer = service.ask(f"/doab/items/{number}")
    assert answer.status == 200
    assert "object-src 'none'" in answer.headers["content-security-policy"]
    for evil in ("<script>alert", "<img src=x", "<svg onload"):
        assert evil not in answer.text
    assert not re.search(r'href="\s*javascript:', answer.text)


@pytest.mark.parametrize("evil", EVIL)
def test_datasette_s_table_survives_hostile_arguments(service: Served, evil: str) -> None:
    for name in (
        "_search",
        "_sort",
        "_facet",
        "title__contains",
        "_next",
        "_size",
        "_col",
        "id__gt",
        "_through",
        "_searchmode",
    ):
        answer = service.ask(f"/doab/items?{urlencode({name: evil})}")
        assert answer.status < 500, (name, answer.text[:300])
        for tag in ("<script>alert", "<img src=x", "<svg onload"):
            assert tag not in answer.text


# Small parts.


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "java\nscript:alert(1)",
        "\x01javascript:alert(1)",
        "data:text/html,x",
        "vbscript:x",
        "//evil.example",
        "/local",
        "http://",
        "http:",
        "http://[",
        "ftp://x/",
        "",
        "https:evil",
    ],
)
def test_only_addresses_of_the_web_become_links(url: str) -> None:
    assert safe_url(url) == ""


def test_addresses_of_the_web_are_kept() -> None:
    assert safe_url("https://doi.org/10.5555/1?a=b#c") == "https://doi.org/10.5555/1?a=b#c"


@pytest.mark.parametrize("evil", EVIL)
def test_a_source_s_links_lead_where_it_says(evil: str) -> None:
    for name, start, host in (
        ("doi", "", "doi.org"),
        ("handle", "20.500.12854/", "directory.doabooks.org"),
        ("handle", "", "hdl.handle.net"),
    ):
        shown = DISPLAY.shown[name](f"{start}{evil}")
        assert urlsplit(shown.url).hostname == host
        assert not re.search(r"[\x00-\x20<>\"']", shown.url)
    licence: Shown = DISPLAY.shown["licence"](evil)
    assert safe_url(licence.url) == ""


@pytest.mark.parametrize(
    ("snippet", "shown"),
    [
        ("a \x01b\x02 c", "a <mark>b</mark> c"),
        ("\x01<b>\x02", "<mark>&lt;b&gt;</mark>"),
        ("\x02a\x01b\x01c\x02d\x02", "ab<mark>c</mark>d"),
        ("\x01", ""),
    ],
)
def test_marks_become_elements_in_pairs_only(snippet: str, shown: str) -> None:
    from tickwork.serve.render import _marked

    assert _marked(snippet) == shown
    assert plain(snippet) == re.sub(r"[\x01\x02]", "", snippet)


def test_what_was_escaped_once_is_not_escaped_again(service: Served) -> None:
    assert "&amp;amp;" not in service.ask(f"/?q={quote('a & b')}").text
    assert callable(render)
