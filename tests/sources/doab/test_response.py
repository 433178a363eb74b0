"""Answers of an OAI-PMH server: whole documents are read, all else is refused and never taken for a short list."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from tests.kits.doab import Clock
from tests.upstreams.books import generated_books
from tests.upstreams.oai import FakeOai
from tests.upstreams.oai_client import LIST, fetch
from tickwork.sources.doab import errors, response

URL = "http://example.org/oai"
OPENING = '<?xml version="1.0" encoding="UTF-8"?><OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/">'
DATE = "<responseDate>2026-10-05T12:00:00Z</responseDate>"
HEADER = "<header><identifier>oai:x:1</identifier><datestamp>2026-01-01T00:00:00Z</datestamp></header>"


def document(inside: str, date: str = DATE) -> bytes:
    return f"{OPENING}{date}{inside}</OAI-PMH>".encode()


def listing(inside: str) -> bytes:
    return document(f"<ListRecords>{inside}</ListRecords>")


@pytest.fixture(scope="module")
def real_list() -> bytes:
    with FakeOai(generated_books(20), page_size=12, clock=Clock()) as oai:
        return fetch(oai, LIST)


def test_a_page_is_read_with_its_token_and_the_lists_size(real_list: bytes) -> None:
    page = response.page(real_list, "ListRecords", URL)
    assert len(page.records) == 12
    assert page.token is not None
    assert (page.token.value, page.size) == ("oai_dc////12", 20)
    assert page.response_date == "2026-10-05T12:00:00Z"


@pytest.mark.parametrize(
    ("told", "read"),
    [
        ("2026-10-05T14:00:00+02:00", "2026-10-05T12:00:00Z"),
        ("0044-03-15T12:00:00Z", "0044-03-15T12:00:00Z"),
        ("9999-12-31T23:59:59.9Z", "9999-12-31T23:59:59Z"),
    ],
)
def test_the_servers_clock_is_read_to_the_second_in_utc(told: str, read: str) -> None:
    date = f"<responseDate>{told}</responseDate>"
    page = response.page(document(f"<ListRecords><record>{HEADER}</record></ListRecords>", date), "ListRecords", URL)
    assert page.response_date == read


def test_no_beginning_of_a_page_is_taken_for_a_page(real_list: bytes) -> None:
    for cut in range(0, len(real_list), 331):
        with pytest.raises(errors.Unreadable):
            response.page(real_list[:cut], "ListRecords", URL)
    with pytest.raises(errors.Unreadable):
        response.page(real_list[:-1], "ListRecords", URL)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "empty body"),
        (b"   \n ", "empty body"),
        (b"<!DOCTYPE html>\n<html><body>Site under maintenance</body></html>", "an HTML page"),
        (b"<html><body>Bad gateway<br></body></html>", "an HTML page"),
        (b"<?xml version='1.0'?><error><message>Solr is down</message></error>", "not a complete OAI-PMH document"),
        (b"<OAI-PMH><responseDate>2026-10-05T12:00:00Z</responseDate></OAI-PMH>", "the root is OAI-PMH"),
        (document(""), "without a ListRecords"),
        (document("<ListIdentifiers/>"), "without a ListRecords"),
        (document("<ListRecords/>", date=""), "responseDate"),
        (document("<ListRecords/>", date="<responseDate>now</responseDate>"), "responseDate"),
        (document("<ListRecords/>", date="<responseDate>0001-01-01T00:00:00+14:00</responseDate>"), "responseDate"),
    ],
)
def test_what_is_no_whole_list_is_refused(body: bytes, told: str) -> None:
    with pytest.raises(errors.Unreadable, match=told):
        response.page(body, "ListRecords", URL)


@pytest.mark.parametrize(
    "broken",
    [
        "<record/>",
        "<record><header><identifier>x</identifier></header></record>",
        f"<record>{HEADER.replace('2026-01-01T', 'yesterday')}</record>",
    ],
)
def test_a_record_without_identifier_or_datestamp_is_counted_and_does_not_lose_the_page(broken: str) -> None:
    page = response.page(listing(f"{broken}<record>{HEADER}</record>"), "ListRecords", URL)
    assert [record.identifier for record in page.records] == ["oai:x:1"]
    assert page.broken == 1
    with pytest.raises(errors.Unreadable, match="without identifier or datestamp"):
        response.record(document(f"<GetRecord>{broken}</GetRecord>"), URL)


def test_fractions_of_a_second_are_cut_off() -> None:
    header = HEADER.replace("00:00Z", "00:00.123Z")
    (record,) = response.page(listing(f"<record>{header}</record>"), "ListRecords", URL).records
    assert record.datestamp == "2026-01-01T00:00:00Z"


def test_an_error_is_told_by_its_code_before_anything_else() -> None:
    body = document('<error code="noRecordsMatch">  None\n here </error><ListRecords/>')
    with pytest.raises(errors.OaiError, match="noRecordsMatch: None here") as told:
        response.page(body, "ListRecords", URL)
    assert told.value.code == "noRecordsMatch"


@pytest.mark.parametrize(
    "token", ["<resumptionToken/>", '<resumptionToken completeListSize="1" cursor="0">\n </resumptionToken>']
)
def test_an_empty_token_ends_the_list(token: str) -> None:
    page = response.page(listing(f"<record>{HEADER}</record>{token}"), "ListRecords", URL)
    assert page.token is None
    assert len(page.records) == 1


@pytest.mark.parametrize("size", ["", "many", "-1", "٣", "1" * 40])
def test_a_size_that_is_no_number_is_no_size(size: str) -> None:
    body = listing(f'<record>{HEADER}</record><resumptionToken completeListSize="{size}">t</resumptionToken>')
    assert response.page(body, "ListRecords", URL).size is None


def test_a_deleted_record_has_no_metadata_even_if_the_server_sends_some() -> None:
    header = HEADER.replace("<header>", '<header status="deleted">')
    page = response.page(listing(f"<record>{header}<metadata><x/></metadata></record>"), "ListRecords", URL)
    assert page.records == [response.Record("oai:x:1", "2026-01-01T00:00:00Z", deleted=True)]


@pytest.mark.parametrize(
    ("granularity", "day"), [("YYYY-MM-DD", True), ("YYYY-MM-DDThh:mm:ssZ", False), ("YYYY-MM-DDTHH:MM:SSZ", False)]
)
def test_identify_tells_the_granularity(granularity: str, day: bool) -> None:
    inside = f"<granularity> {granularity}</granularity><earliestDatestamp>2020-04-01</earliestDatestamp>"
    identity = response.identity(document(f"<Identify>{inside}</Identify>"), URL)
    assert (identity.day_granularity, identity.earliest) == (day, "2020-04-01")


def test_white_space_and_a_byte_order_mark_before_the_prolog_do_no_harm(real_list: bytes) -> None:
    for before in (b"\n", b"\r\n\t  ", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"):
        page = response.page(before + real_list, "ListRecords", URL)
        assert len(page.records) == 12
        assert not page.cleaned


@pytest.mark.parametrize("junk", [b"\x0b", b"\x00", b"&#x1;", b"&#31;", b"&#xFFFE;", b"\xc3\x28\xff", b"\xed\xa0\x80"])
def test_illegal_characters_are_removed_and_nothing_else(real_list: bytes, junk: bytes) -> None:
    spoilt = real_list.replace(b"title>", b"title>" + junk, 1)
    page, clean = (response.page(body, "ListRecords", URL) for body in (spoilt, real_list))
    assert page.cleaned
    assert [record.identifier for record in page.records] == [record.identifier for record in clean.records]
    assert page.token == clean.token


def test_broken_xml_is_not_recovered_by_the_repair(real_list: bytes) -> None:
    for spoilt in (real_list.replace(b"</OAI-PMH>", b"</OAI-PHM>"), real_list.replace(b"</record>", b"\x0b", 1)):
        with pytest.raises(errors.Unreadable):
            response.page(spoilt, "ListRecords", URL)


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
BOMB = f'<!DOCTYPE OAI-PMH [<!ENTITY l0 "lolololololol">{LAUGHS}]>'


@pytest.mark.parametrize("padding", ["", f"<!-- {'x' * 10_000} -->"])
@pytest.mark.parametrize("place", ["text", "attribute"])
def test_entities_are_refused_wherever_they_stand(padding: str, place: str) -> None:
    root = "<OAI-PMH xmlns='http://www.openarchives.org/OAI/2.0/'"
    inside = f"{root}>&l9;</OAI-PMH>" if place == "text" else f"{root} a='&l9;'/>"
    for encoding in ("utf-8", "utf-16"):
        with pytest.raises(errors.Unreadable):
            response.parse(f"{padding}{BOMB}{inside}".encode(encoding), URL)


def test_a_file_named_by_an_entity_is_not_read() -> None:
    body = (
        '<!DOCTYPE OAI-PMH [<!ENTITY f SYSTEM "file:///etc/passwd">]>'
        f'<OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/">{DATE}<error code="x">&f;</error></OAI-PMH>'
    )
    with pytest.raises(errors.Unreadable):
        response.parse(f"<!-- {'x' * 10_000} -->{body}".encode(), URL)


def test_memory_stays_bounded_for_a_bomb_of_entities() -> None:
    """In a process of its own that may have 512 MiB: an expansion of gigabytes would end it."""
    program = (
        "import sys; from tickwork.sources.doab import errors, response\n"
        "from tests.sources.doab.test_response import BOMB, URL\n"
        "root = \"<OAI-PMH xmlns='http://www.openarchives.org/OAI/2.0/'\"\n"
        "for inside in (root + '>&l9;</OAI-PMH>', root + \" a='&l9;'/>\"):\n"
        "    try: response.parse((f\"<!-- {'x' * 10000} -->\" + BOMB + inside).encode(), URL)\n"
        "    except errors.Unreadable: pass\n"
        "    else: sys.exit('taken')\n"
    )
    limit = 512 * 2**20
    ended = subprocess.run(
        [sys.executable, "-c", program],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
