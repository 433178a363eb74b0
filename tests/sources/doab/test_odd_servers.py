"""Servers that are odd and not wrong: strange dates, tokens, encodings and ends of lists."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from tests.kits.doab import DRAINED, HALTED, HARVEST_ALL, MORE, Clock, Site, active_in, stored_by, well_mannered
from tests.upstreams import oai_protocol
from tests.upstreams.books import generated_books, xml_text
from tests.upstreams.oai import FakeOai
from tests.upstreams.oai_records import DAYS, SECONDS
from tickwork.sources.doab import response as answers

BOOKS = generated_books(90, seed=4)
PAGE_SIZE = 25
ACTIVE = active_in(BOOKS)
URL = "http://h.example/oai"


def lists(oai: FakeOai) -> list[dict[str, str]]:
    return [seen.params for seen in oai.history if seen.verb in ("ListRecords", "ListIdentifiers")]


# earliestDatestamp


@pytest.mark.parametrize(
    "earliest",
    [
        "2020-04-01",
        "2020-04-01T00:00:00Z",
        "2020-04-01T00:00:00.123Z",
        "2020-04-01T00:00:00+00:00",
        "2020-04-01 00:00:00",
        "2020-13-45",
        "2020-02-30T25:61:61Z",
        "0000-00-00",
        "0001-01-01",
        "0001-01-01T00:00:00Z",
        "yesterday",
        "",
    ],
)
@pytest.mark.parametrize("granularity", [SECONDS, DAYS])
def test_a_server_is_discovered_whatever_it_takes_for_its_earliest_datestamp(
    earliest: str, granularity: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identify = oai_protocol.Protocol._identify

    def oddly(protocol: oai_protocol.Protocol) -> bytes:
        head, _, tail = identify(protocol).decode().partition("<earliestDatestamp>")
        _, end, tail = tail.partition("</earliestDatestamp>")
        return f"{head}<earliestDatestamp>{xml_text(earliest)}{end}{tail}".encode()

    monkeypatch.setattr(oai_protocol.Protocol, "_identify", oddly)
    with FakeOai(BOOKS, page_size=PAGE_SIZE, clock=Clock(), granularity=granularity) as oai:
        site = Site(tmp_path, oai)
        assert site.run("discover").code == DRAINED
        listed = {line.split("\t")[0] for line in site.snapshot().read_text().splitlines()[1:]}
        assert listed == set(ACTIVE)
        length = len("2020-04-01") if granularity == DAYS else len("2020-04-01T00:00:00Z")
        assert {len(params[name]) for params in lists(oai) if "from" in params for name in ("from", "until")} == {
            length
        }
        well_mannered(oai)


# Tokens


def test_a_token_that_was_expired_when_it_was_given_is_used_all_the_same(site: Site, oai: FakeOai) -> None:
    oai.fault("expiration-past", count=None)
    done = site.run(*HARVEST_ALL)
    assert done.code == DRAINED
    assert "read again" not in done.err
    assert site.stamps() == stored_by(oai)
    assert len(lists(oai)) == 4
    assert sum("resumptionToken" in params for params in lists(oai)) == 3


def test_a_token_that_expired_while_we_were_away_is_not_tried(tmp_path: Path) -> None:
    with FakeOai(BOOKS, page_size=PAGE_SIZE, clock=Clock(), token_lifetime=dt.timedelta(microseconds=1)) as oai:
        oai._protocol.token_lifetime = dt.timedelta(seconds=1)
        site = Site(tmp_path, oai, window_items=100000)
        assert site.run("harvest", "--from", "2000-01-01", "--limit", "25").code == MORE
        with site.db() as db:
            db.execute("UPDATE windows SET expires = '2026-01-01T00:00:00+00:00'")
        assert site.run("harvest", "--limit", "20").code == MORE
        assert "resumptionToken" not in lists(oai)[1]


# Lists without sizes that do not say where they end


@pytest.fixture
def taciturn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server tells no sizes, and no empty token at the end of a list."""

    def token_xml(page: oai_protocol.Page) -> bytes:
        return f"<resumptionToken>{xml_text(page.token)}</resumptionToken>".encode() if page.token else b""

    monkeypatch.setattr(oai_protocol.Page, "_token_xml", token_xml)


@pytest.mark.usefixtures("taciturn")
def test_a_list_that_just_stops_is_read_twice_before_it_counts(site: Site, oai: FakeOai) -> None:
    done = site.run(*HARVEST_ALL)
    assert done.code == DRAINED
    assert "without a final resumption token" in done.err
    assert len(lists(oai)) == 8
    assert site.stamps() == stored_by(oai)


@pytest.mark.usefixtures("taciturn")
def test_a_list_that_stopped_early_once_is_read_until_it_is_the_same_twice(site: Site, oai: FakeOai) -> None:
    oai.fault("early-end", nth=2)
    assert site.run(*HARVEST_ALL).code == DRAINED
    assert len(lists(oai)) == 2 + 4 + 4
    assert site.stamps() == stored_by(oai)
    assert site.cursor()


@pytest.mark.usefixtures("taciturn")
def test_a_list_that_never_stops_at_the_same_place_halts(site: Site, oai: FakeOai) -> None:
    for place in (2, 5, 7, 11):  # after two pages, three, two, and so on
        oai.fault("early-end", verb="ListRecords", nth=place)
    done = site.run("harvest", "--from", "2000-01-01", "--limit", "100000")
    assert done.code in (DRAINED, HALTED)
    if done.code == DRAINED:
        assert site.stamps() == stored_by(oai)
    else:
        assert "never in full" in site.marker("doab-harvest")


@pytest.mark.usefixtures("taciturn")
def test_a_list_of_one_page_needs_no_second_look(tmp_path: Path) -> None:
    with FakeOai(BOOKS, page_size=100, clock=Clock()) as oai:
        assert Site(tmp_path, oai).run(*HARVEST_ALL).code == DRAINED
        assert len(lists(oai)) == 1


def test_a_list_that_ends_with_an_empty_token_is_read_once(site: Site, oai: FakeOai) -> None:
    assert site.run(*HARVEST_ALL).code == DRAINED
    assert len(lists(oai)) == 4


# Encodings


@pytest.mark.parametrize(
    ("declared", "codec"), [("ISO-8859-1", "latin-1"), ("iso-8859-15", "iso-8859-15"), ("windows-1252", "cp1252")]
)
@pytest.mark.parametrize("junk", [b"\x0b", b"&#x1;"])
def test_illegal_characters_in_another_encoding_cost_no_accents(declared: str, codec: str, junk: bytes) -> None:
    text = (
        f'<?xml version="1.0" encoding="{declared}"?>\n<OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/">'
        "<responseDate>2026-01-01T00:00:00Z</responseDate><ListRecords><record><header>"
        "<identifier>oai:x:1</identifier><datestamp>2026-01-01T00:00:00Z</datestamp></header>"
        "<metadata><dc><title>Éloge de la forêt</title></dc></metadata></record></ListRecords></OAI-PMH>"
    )
    page = answers.page(text.encode(codec).replace(b"<title>", b"<title>" + junk), "ListRecords", URL)
    assert page.cleaned
    (record,) = page.records
    assert record.metadata is not None
    assert [element.text for element in record.metadata] == ["Éloge de la forêt"]
