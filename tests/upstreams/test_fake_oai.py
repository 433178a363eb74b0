"""The fake OAI-PMH server does what it says, and its oracle neither misses nor invents anything."""

import gzip
import http.client
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.kits.patience import PATIENCE_SECONDS, until
from tests.upstreams.books import Book, Work, books_from_csv, books_from_page, generated_books, oai_dc
from tests.upstreams.oai import FakeOai
from tests.upstreams.oai_client import (
    BOOKS,
    LIST,
    NS,
    PREFIX,
    ask,
    code,
    failure,
    fetch,
    hanging_client,
    identifiers,
    token,
    walk,
)
from tests.upstreams.oai_history import Moment, Recorder


@pytest.fixture
def oai():
    with FakeOai(BOOKS) as server:
        yield server


# --- the protocol ------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["ListRecords", "ListIdentifiers"])
def test_a_walk_by_tokens_gives_each_identifier_once(oai, verb):
    pages = walk(oai, {"verb": verb, **PREFIX})
    found = [identifier for page in pages for identifier in identifiers(page)]
    expected = sorted(BOOKS, key=lambda book: (book.datestamp, book.identifier))
    assert found == [book.identifier for book in expected]
    assert [token(page).text for page in pages] == ["oai_dc////100", "oai_dc////200", None]
    assert {token(page).get("completeListSize") for page in pages} == {"250"}
    assert [token(page).get("cursor") for page in pages] == ["0", "100", "200"]


def test_a_list_of_one_page_has_no_token():
    with FakeOai(BOOKS[:100]) as server:
        assert token(ask(server, LIST)) is None


def test_post_answers_as_get_does(oai):
    form = urllib.parse.urlencode(LIST).encode()
    with urllib.request.urlopen(oai.base_url, form, timeout=PATIENCE_SECONDS) as response:
        assert identifiers(ElementTree.fromstring(response.read())) == identifiers(ask(oai, LIST))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "badVerb"),
        ("verb=Harvest", "badVerb"),
        ("verb=Identify&verb=Identify", "badVerb"),
        ("verb=Identify&set=x", "badArgument"),
        ("verb=ListRecords", "badArgument"),
        ("verb=ListRecords&metadataPrefix=oai_dc&metadataPrefix=oai_dc", "badArgument"),
        ("verb=ListRecords&metadataPrefix=oai_dc&from=2021-01-01&until=2021-01-02T00:00:00Z", "badArgument"),
        ("verb=ListRecords&metadataPrefix=oai_dc&from=2022-01-01&until=2021-01-01", "badArgument"),
        ("verb=ListRecords&metadataPrefix=oai_dc&from=2021-02-30", "badArgument"),
        ("verb=ListRecords&metadataPrefix=oai_dc&from=", "badArgument"),
        ("verb=ListRecords&metadataPrefix=oai_dc&resumptionToken=oai_dc////100", "badArgument"),
        ("verb=ListRecords&metadataPrefix=marcxml", "cannotDisseminateFormat"),
        ("verb=ListRecords&metadataPrefix=oai_dc&until=1999-01-01", "noRecordsMatch"),
        ("verb=ListRecords&metadataPrefix=oai_dc&set=nowhere", "noRecordsMatch"),
        ("verb=ListRecords&resumptionToken=oai_dc////9000", "noRecordsMatch"),
        ("verb=ListRecords&resumptionToken=oai_dc////-1", "badResumptionToken"),
        ("verb=ListRecords&resumptionToken=mine", "badResumptionToken"),
        ("verb=GetRecord&metadataPrefix=oai_dc&identifier=oai:x:1", "idDoesNotExist"),
        ("verb=GetRecord&metadataPrefix=oai_dc", "badArgument"),
        ("verb=ListMetadataFormats&identifier=oai:x:1", "idDoesNotExist"),
    ],
)
def test_errors_are_the_specification_s(oai, query, expected):
    with urllib.request.urlopen(f"{oai.base_url}?{query}", timeout=PATIENCE_SECONDS) as response:
        document = ElementTree.fromstring(response.read())
    assert code(document) == expected
    echoed = document.find(f"{NS}request").attrib
    assert bool(echoed) == (expected not in ("badVerb", "badArgument"))


def test_windows_include_both_their_ends(oai):
    ordered = sorted(BOOKS, key=lambda book: (book.datestamp, book.identifier))
    stamps = [book.datestamp.strftime("%Y-%m-%dT%H:%M:%SZ") for book in ordered]
    found = identifiers(ask(oai, {**LIST, "from": stamps[10], "until": stamps[19]}))
    assert found == [book.identifier for book in ordered[10:20]]


def test_a_repository_of_days_knows_no_seconds():
    with FakeOai(BOOKS, granularity="YYYY-MM-DD") as server:
        assert ask(server, {"verb": "Identify"}).findtext(f".//{NS}granularity") == "YYYY-MM-DD"
        assert code(ask(server, {**LIST, "from": "2021-01-01T00:00:00Z"})) == "badArgument"
        day = min(book.datestamp for book in BOOKS).strftime("%Y-%m-%d")
        document = ask(server, {**LIST, "from": day, "until": day})
        assert document.findtext(f".//{NS}datestamp") == day


def test_a_deleted_record_has_a_header_and_no_metadata(oai):
    gone = next(book for book in BOOKS if book.deleted)
    document = ask(oai, {"verb": "GetRecord", "identifier": gone.identifier, **PREFIX})
    assert document.find(f".//{NS}header").get("status") == "deleted"
    assert document.find(f".//{NS}metadata") is None


def test_sets_partition_the_list_unless_there_are_none(oai):
    books = identifiers(ask(oai, {**LIST, "set": "com_20.500.12854_5"}))
    chapters = identifiers(ask(oai, {**LIST, "set": "com_20.500.12854_7"}))
    assert books
    assert chapters
    assert not set(books) & set(chapters)
    with FakeOai(BOOKS, with_sets=False) as server:
        assert code(ask(server, {"verb": "ListSets"})) == "noSetHierarchy"
        assert code(ask(server, {**LIST, "set": "x"})) == "noSetHierarchy"


def test_gzip_is_for_those_who_accept_it(oai):
    packed = fetch(oai, LIST, {"Accept-Encoding": "gzip"})
    assert len(identifiers(ElementTree.fromstring(gzip.decompress(packed)))) == 100
    assert fetch(oai, LIST, {"Accept-Encoding": "gzip;q=0"}).startswith(b"<?xml")


def test_the_clock_and_the_tokens_lifetime_can_be_set():
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    with FakeOai(BOOKS, clock=lambda: noon, token_lifetime=timedelta(hours=1)) as server:
        document = ask(server, LIST)
    assert document.findtext(f"{NS}responseDate") == "2026-01-01T12:00:00Z"
    assert token(document).get("expirationDate") == "2026-01-01T13:00:00Z"


def test_a_touched_record_shifts_the_pages_behind_it(oai):
    until = {**LIST, "until": "2026-12-31T00:00:00Z"}
    first = ask(oai, until)
    oai.touch(identifiers(first)[0], datetime(2027, 1, 1, tzinfo=UTC))
    second = ask(oai, {"verb": "ListRecords", "resumptionToken": token(first).text})
    assert token(second).get("completeListSize") == "249"
    ordered = sorted(BOOKS, key=lambda book: (book.datestamp, book.identifier))
    assert identifiers(second)[0] == ordered[101].identifier


def test_changes_show_at_once(oai):
    one, other = BOOKS[0].identifier, BOOKS[1].identifier
    oai.delete(one)
    oai.remove(other)
    oai.put(Book("oai:x:1", "x/1", datetime(2026, 1, 1, tzinfo=UTC), metadata_xml="<a/>"))
    found = ask(oai, {"verb": "GetRecord", "identifier": one, **PREFIX})
    assert found.find(f".//{NS}header").get("status") == "deleted"
    assert code(ask(oai, {"verb": "GetRecord", "identifier": other, **PREFIX})) == "idDoesNotExist"
    assert code(ask(oai, {"verb": "GetRecord", "identifier": "oai:x:1", **PREFIX})) is None


# --- the books ---------------------------------------------------------------------------------------


def test_generated_books_are_deterministic_and_well_formed():
    assert generated_books(250, seed=7) == BOOKS
    assert generated_books(250, seed=8) != BOOKS
    trees = [ElementTree.fromstring(book.metadata_xml) for book in BOOKS if not book.deleted]
    assert 0 < len(BOOKS) - len(trees) < 30
    title_namespaces = {each.tag for tree in trees for each in tree if each.tag.endswith("}title")}
    assert len(title_namespaces) == 2


def test_text_is_escaped_and_illegal_characters_dropped():
    tree = ElementTree.fromstring(oai_dc(Work("x/1", 'A <b> & "c"\x0b\ufffe', "2020-01-01")))
    assert tree[0].text == 'A <b> & "c"'


def real_data():
    if "TICKWORK_REAL_DATA" not in os.environ:
        pytest.skip("TICKWORK_REAL_DATA unset")
    return Path(os.environ["TICKWORK_REAL_DATA"]) / "doab"


@pytest.mark.slow
def test_every_real_book_of_2018_can_be_served():
    books = books_from_csv(real_data() / "doab_books_2018.csv")
    assert len({book.identifier for book in books}) == 10_858
    with FakeOai(books, page_size=1000) as server:
        served = [identifier for page in walk(server) for identifier in identifiers(page)]
    assert sorted(served) == sorted(book.identifier for book in books)


def test_the_real_page_keeps_its_bytes():
    path = real_data() / "doab-check_test.xml"
    books = books_from_page(path)
    assert (len(books), sum(book.deleted for book in books)) == (100, 5)
    with FakeOai(books) as server:
        served = fetch(server, LIST)
    records = re.findall(rb"<record>.*?</record>", path.read_bytes(), re.DOTALL)
    assert sorted(re.findall(rb"<record>.*?</record>", served, re.DOTALL)) == sorted(records)


# --- the oracle --------------------------------------------------------------------------------------


def test_requests_one_after_the_other_do_not_overlap(oai):
    for _ in range(150):
        fetch(oai, {"verb": "Identify"}, {"User-Agent": "tickwork/1 (+https://example.org)"})
    history = oai.history
    assert len({seen.peer for seen in history}) > 100
    assert history.overlaps() == []
    assert history.closest() > 0
    assert history.starts_closest() > history.closest()
    assert history.without_user_agent() == []


def test_kept_alive_connections_serve_many_requests(oai):
    client = http.client.HTTPConnection("127.0.0.1", oai.port)
    for _ in range(3):
        client.request("GET", "/oai/request?verb=Identify")
        client.getresponse().read()
    client.close()
    assert len(oai.history) == 3
    assert len({seen.peer for seen in oai.history}) == 1
    assert oai.history.overlaps() == []


def test_two_requests_at_once_are_an_overlap(oai):
    oai.fault("slow", verb="Identify", seconds=0.4)
    slow = threading.Thread(target=fetch, args=(oai, {"verb": "Identify"}))
    slow.start()
    until(lambda: len(oai.history) == 1)
    assert oai.history.closest() == float("inf")
    fetch(oai, {"verb": "ListSets"})
    slow.join()
    ((earlier, later),) = oai.history.overlaps()
    assert (earlier.verb, later.verb) == ("Identify", "ListSets")
    assert oai.history.closest() < 0
    assert oai.history.overlaps(since=1) == []


@pytest.mark.parametrize("kind", ["slow", "drip-headers", "drip-body"])
def test_a_request_ends_when_its_client_dies(oai, kind):
    oai.fault(kind, seconds=300, interval=100)
    client = hanging_client(oai)
    time.sleep(0.1)
    assert oai.history[0].ended is None
    hung_up = time.monotonic()
    client.close()
    until(lambda: oai.history[0].ended is not None)
    assert oai.history[0].ended - hung_up < PATIENCE_SECONDS
    assert oai.history[0].client_gone


def test_the_successor_of_a_killed_client_does_not_overlap_it(oai):
    oai.fault("slow", seconds=300, count=None, verb="Identify")
    script = f"import urllib.request; urllib.request.urlopen('{oai.base_url}?verb=Identify')"
    for round_ in range(3):
        client = subprocess.Popen([sys.executable, "-c", script])
        until(lambda n=round_: len(oai.history) == 2 * n + 1)
        client.kill()
        client.wait()
        fetch(oai, {"verb": "ListSets"})
    assert oai.history.overlaps() == []
    assert sum(seen.client_gone for seen in oai.history) == 3


def test_a_client_seen_dead_first_by_its_successor_does_not_overlap_it():
    recorder = Recorder()
    dead = recorder.begin(Moment.now(), 1, lambda: True)
    alive = recorder.begin(Moment.now(), 2, lambda: False)
    recorder.begin(Moment.now(), 3, lambda: False)
    assert dead.client_gone
    assert [(a.seq, b.seq) for a, b in recorder.snapshot().overlaps()] == [(alive.seq, 3)]


@pytest.mark.parametrize("via", ["seconds", "date", "x-reset", "reset"])
@pytest.mark.parametrize("status", ["429", "503"])
def test_a_request_inside_a_hold_is_found(oai, status, via):
    oai.fault(status, after=2, via=via)
    told = failure(oai)
    header = {"x-reset": "X-RateLimit-Reset", "reset": "RateLimit-Reset"}.get(via, "Retry-After")
    assert (told.code, told.headers[header] is not None) == (int(status), True)
    if via == "date":
        assert parsedate_to_datetime(told.headers[header]).timestamp() == oai.history[0].hold_until
    assert 0 < oai.history[0].hold_until - time.time() <= 2
    fetch(oai, {"verb": "Identify"})
    assert [seen.seq for seen in oai.history.inside_holds()] == [2]
    assert oai.history.inside_holds(slack=2) == []


def test_a_request_after_the_hold_or_without_one_is_no_offence(oai):
    oai.fault("429", after=1)
    oai.fault("503", via="none")
    failure(oai)
    time.sleep(1.01)
    failure(oai)
    fetch(oai, {"verb": "Identify"})
    assert oai.history.inside_holds() == []
    assert [seen.status for seen in oai.history] == [429, 503, 200]


def test_the_history_says_who_asked_for_what(oai):
    asked = BOOKS[3].identifier
    for _ in range(2):
        fetch(oai, {"verb": "GetRecord", "identifier": asked, **PREFIX}, {"From": "me@example.org"})
    assert oai.history.asked_for("GetRecord") == {asked: 2}
    assert oai.history[0].headers["From"] == "me@example.org"
    assert len(oai.history.without_user_agent()) == 2
    assert oai.history.summary()["verbs"] == {"GetRecord": 2}
