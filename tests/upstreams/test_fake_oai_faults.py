"""Each fault of the fake OAI-PMH server does what it says, and its command line serves others."""

import http.client
import json
import random
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.kits.patience import PATIENCE_SECONDS, until
from tests.upstreams.faults import BOMB_MEBIBYTES, Fault, Switches
from tests.upstreams.oai import FakeOai, parse_fault
from tests.upstreams.oai_client import (
    BOOKS,
    LIST,
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
from tests.upstreams.oai_history import History
from tests.upstreams.oai_wire import Request

ROOT = Path(__file__).parents[2]
RESUME = {"verb": "ListRecords", "resumptionToken": "oai_dc////100"}


@pytest.fixture
def oai():
    with FakeOai(BOOKS) as server:
        yield server


# --- an answer instead, or broken -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["500", "403", "404", "418"])
def test_a_status_is_answered_with_plain_text(oai, kind):
    oai.fault(kind)
    told = failure(oai)
    assert (told.code, told.headers.get_content_type()) == (int(kind), "text/plain")
    assert len(identifiers(ask(oai, LIST))) == 100


def test_whole_answers_are_replaced(oai):
    for kind in ("403-challenge", "html", "empty", "error-page", "redirect"):
        oai.fault(kind, to="http://127.0.0.1:9/x")
    assert failure(oai).headers["cf-mitigated"] == "challenge"
    assert b"<html>" in fetch(oai, LIST)
    assert fetch(oai, LIST) == b""
    assert ElementTree.fromstring(fetch(oai, LIST)).tag == "error"
    with pytest.raises(urllib.error.URLError, match="refused"):
        fetch(oai, LIST)
    assert [seen.fault for seen in oai.history] == ["403-challenge", "html", "empty", "error-page", "redirect"]


def test_a_truncated_answer_is_shorter_than_it_promised(oai):
    oai.fault("truncate", keep=0.3)
    with pytest.raises(http.client.IncompleteRead) as cut:
        fetch(oai, LIST)
    assert len(cut.value.partial) == pytest.approx(0.3 * (len(cut.value.partial) + cut.value.expected), abs=2)


@pytest.mark.parametrize("kind", ["truncate-body", "whitespace", "illegal-char", "bad-utf8", "bad-xml"])
@pytest.mark.parametrize("verb", ["ListRecords", "ListIdentifiers"])
def test_broken_xml_comes_in_a_complete_answer(oai, kind, verb):
    oai.fault(kind)
    body = fetch(oai, {"verb": verb, **PREFIX})
    with pytest.raises(ElementTree.ParseError):
        ElementTree.fromstring(body)
    expected = {"whitespace": b"\n<?xml", "illegal-char": b"\x0b&#x1;", "bad-utf8": b"\xc3\x28"}
    assert expected.get(kind, b"") in body


def test_a_doctype_declares_the_billion_laughs(oai):
    oai.fault("doctype")
    body = fetch(oai, LIST)
    assert b"<!DOCTYPE OAI-PMH [<!ENTITY lol0" in body
    assert b"title>&lol9;" in body


def test_a_gzip_bomb_is_small_and_decodes_to_more_than_300_mb(oai):
    oai.fault("gzip-bomb")
    bomb = fetch(oai, LIST)
    assert len(bomb) < 600_000
    unpacker, size = zlib.decompressobj(16 + zlib.MAX_WBITS), 0
    while not unpacker.eof:
        size += len(unpacker.decompress(unpacker.unconsumed_tail or bomb, 2**24))
        bomb = b""
    assert BOMB_MEBIBYTES * 2**20 < size < BOMB_MEBIBYTES * 2**20 + 100
    assert size > 300_000_000


def test_a_reset_comes_before_any_byte(oai):
    oai.fault("reset")
    with pytest.raises(ConnectionResetError):
        hanging_client(oai).recv(1)
    assert oai.history[0].bytes_sent == 0
    assert not oai.history[0].client_gone


def test_too_many_headers_are_too_many_for_http_client(oai):
    oai.fault("too-many-headers")
    with pytest.raises(http.client.HTTPException, match="more than 100 headers"):
        fetch(oai, LIST)


@pytest.mark.parametrize("kind", ["drip-headers", "drip-body"])
def test_a_drip_with_an_end_is_a_whole_answer_late(oai, kind):
    whole = ElementTree.fromstring(fetch(oai, LIST))
    oai.fault(kind, interval=0.001, end=0.4)
    asked = time.monotonic()
    assert identifiers(ask(oai, LIST)) == identifiers(whole)
    assert time.monotonic() - asked >= 0.4


def test_a_drip_without_end_goes_on_byte_by_byte(oai):
    oai.fault("drip-headers", interval=0.001)
    client = hanging_client(oai)
    received = b""
    while len(received) < 400:
        received += client.recv(64)
    client.close()
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"X-Drip" in received
    assert b"\r\n\r\n" not in received


# --- lists that go wrong -----------------------------------------------------------------------------


def test_a_loop_gives_the_same_token_again(oai):
    oai.fault("loop")
    ask(oai, LIST)
    assert token(ask(oai, RESUME)).text == RESUME["resumptionToken"]


def test_a_repeated_page_has_a_fresh_token(oai):
    first = ask(oai, LIST)
    oai.fault("repeat-page")
    repeated = ask(oai, RESUME)
    assert identifiers(repeated) == identifiers(first)
    assert token(repeated).text == "oai_dc////200"


def test_an_early_end_leaves_the_list_short_of_its_size(oai):
    oai.fault("early-end", nth=2)
    pages = walk(oai)
    assert sum(len(identifiers(page)) for page in pages) == 200
    assert token(pages[-1]).get("completeListSize") == "250"


def test_a_miscount_is_off_by_what_is_asked(oai):
    oai.fault("miscount", by=-3)
    assert token(ask(oai, LIST)).get("completeListSize") == "247"


def test_a_token_expires_once(oai):
    oai.fault("expire-token")
    assert code(ask(oai, LIST)) is None
    assert code(ask(oai, RESUME)) == "badResumptionToken"
    assert code(ask(oai, RESUME)) is None


def test_an_expiration_date_can_be_past(oai):
    oai.fault("expiration-past")
    assert token(ask(oai, LIST)).get("expirationDate") < "2021"


def test_an_empty_page_loses_nothing(oai):
    oai.fault("empty-page", nth=1)
    oai.fault("empty-page", nth=3)
    pages = walk(oai)
    assert [len(identifiers(page)) for page in pages] == [0, 100, 0, 100, 50]
    tokens = [token(page).text for page in pages]
    assert len(set(tokens)) == len(tokens)


def test_a_shift_makes_a_walk_miss_records(oai):
    oai.fault("shift", verb="ListRecords", nth=2, count=None, seed=3)
    until = {**LIST, "until": "2026-10-01T00:00:00Z"}
    found = {identifier for page in walk(oai, until) for identifier in identifiers(page)}
    unmoved = {book.identifier for book in oai.records.books() if book.datestamp.year < 2026}
    assert unmoved - found
    changes = []
    oai.fault("shift", change=changes.append)
    ask(oai, LIST)
    assert changes == [oai]


def test_a_wrong_record_is_not_the_one_asked_for(oai):
    oai.fault("wrong-record")
    asked = {"verb": "GetRecord", "identifier": BOOKS[3].identifier, **PREFIX}
    assert identifiers(ask(oai, asked)) not in ([BOOKS[3].identifier], [])
    assert identifiers(ask(oai, asked)) == [BOOKS[3].identifier]


# --- which requests are hit --------------------------------------------------------------------------


def hits(fault, requests=20, **params):
    switches = Switches([fault])
    request = Request("GET", "/oai/request", list({"verb": "Identify", **params}.items()), {})
    return [n for n in range(1, requests + 1) if switches.strike(request)]


def test_a_switch_fires_for_what_it_matches():
    assert hits(Fault("500")) == [1]
    assert hits(Fault("500", nth=3)) == [3]
    assert hits(Fault("500", nth=3, count=2)) == [3, 4]
    assert hits(Fault("500", every=6, count=None)) == [6, 12, 18]
    assert hits(Fault("500", verb="GetRecord")) == []
    assert hits(Fault("500", identifier="b"), identifier="a") == []
    assert hits(Fault("500", identifier="a"), identifier="a") == [1]
    assert hits(Fault("loop")) == []


def test_chance_is_the_same_for_the_same_seed():
    likely = Fault("500", probability=0.5, count=None, seed=4)
    rng = random.Random(4)
    assert hits(likely) == [n for n in range(1, 21) if rng.random() < 0.5]


def test_one_answer_per_request_and_slow_beside_it(oai):
    for kind in ("slow", "500", "503"):
        oai.fault(kind, seconds=0.05)
    assert (failure(oai).code, failure(oai).code) == (500, 503)
    assert [seen.fault for seen in oai.history] == ["slow,500", "503"]


def test_a_switch_is_read_from_text():
    fault = parse_fault("429:verb=ListRecords,nth=3,after=5,via=date,count=none")
    assert (fault.kind, fault.verb, fault.nth, fault.after, fault.via) == ("429", "ListRecords", 3, 5, "date")
    assert fault.count is None
    for wrong in ("lop", "429:via=pigeon", "500:nht=3", ""):
        with pytest.raises(ValueError, match=r"fault|via"):
            parse_fault(wrong)


# --- the command line --------------------------------------------------------------------------------


@contextmanager
def serving(folder, *arguments):
    """The server as a process of its own, on the standard library alone (`-S`: no site-packages)."""
    ready = folder / "ready"
    command = [sys.executable, "-S", "-m", "tests.upstreams.oai", "--ready-file", str(ready), *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            until(ready.exists)
            yield process, ready.read_text().strip()
        finally:
            process.kill()


def call(base_url, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(base_url.replace("/oai/request", path), data, timeout=PATIENCE_SECONDS) as response:
        return json.load(response)


def test_the_command_serves_records_its_judgement_and_is_changed(tmp_path):
    lines = tmp_path / "history.jsonl"
    switches = ["--books", "30", "--history", str(lines), "--fault", "503:nth=1,after=9"]
    with serving(tmp_path, *switches) as (process, url):
        assert process.stdout.readline().strip() == url
        query = f"{url}?verb=ListIdentifiers&metadataPrefix=oai_dc"
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(query, timeout=PATIENCE_SECONDS)
        first = re.search(
            r"<identifier>([^<]+)", urllib.request.urlopen(query, timeout=PATIENCE_SECONDS).read().decode()
        )[1]
        assert call(url, "/-/judgement")["inside_holds"] == 1
        assert call(url, "/-/faults", [{"kind": "403"}]) == {"faults": 1}
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(query, timeout=PATIENCE_SECONDS)
        book = {"identifier": "oai:x:1", "datestamp": "2026-01-01T00:00:00Z", "metadata_xml": "<a/>"}
        changes = [
            {"action": "put", "book": book},
            {"action": "touch", "identifier": "oai:x:1", "when": "2026-02-01T00:00:00Z"},
            {"action": "delete", "identifier": first},
        ]
        assert call(url, "/-/change", changes) == {"changed": 3}
        page = urllib.request.urlopen(query, timeout=PATIENCE_SECONDS).read()
        assert page.count(b"<header") == 31
        assert len(call(url, "/-/history")) == 4
        with pytest.raises(urllib.error.HTTPError, match="400"):
            call(url, "/-/faults", [{"kind": "nonsense"}])
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=5) == 0
    history = History.read(lines)
    assert [seen.status for seen in history] == [503, 200, 403, 200]
    assert history.overlaps() == []
