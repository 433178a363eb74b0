"""Any bytes as an answer, any text as an identifier: what is read is right, and nothing unannounced is raised."""

from __future__ import annotations

import string
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from tickwork.sources.doab import response as answers
from tickwork.sources.doab.metadata import Fields, doi, fields_of, isbn13

URL = "http://example.org/oai"
NAMESPACE = "http://www.openarchives.org/OAI/2.0/"
DATE = "2026-10-05T12:00:00Z"
SEED = (
    f'<?xml version="1.0" encoding="UTF-8"?>\n<OAI-PMH xmlns="{NAMESPACE}"><responseDate>{DATE}</responseDate>'
    "<ListRecords><record><header><identifier>oai:x:1</identifier><datestamp>2026-01-01</datestamp></header>"
    '<metadata><dc xmlns="urn:dc"><title>T</title><identifier type="ISBN">9783428532544</identifier></dc></metadata>'
    '</record><resumptionToken completeListSize="2">t</resumptionToken></ListRecords></OAI-PMH>'
).encode()


def read_all_ways(body: bytes) -> None:
    """Read `body` as every kind of answer; only the two announced exceptions may come out."""
    for read in (answers.parse, answers.record, answers.identity):
        with suppress(answers.Unreadable, answers.OaiError):
            read(body, URL)
    for verb in ("ListRecords", "ListIdentifiers"):
        with suppress(answers.Unreadable, answers.OaiError):
            for record in answers.page(body, verb, URL).records:
                if record.metadata is not None:
                    assert isinstance(fields_of(record.metadata), Fields)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_unannounced(body: bytes) -> None:
    read_all_ways(body)


@given(st.data())
def test_a_spoilt_answer_raises_nothing_unannounced(data: st.DataObject) -> None:
    body = bytearray(SEED)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body)))
        length = data.draw(st.integers(0, 40))
        body[place : place + length] = data.draw(st.binary(max_size=12))
    read_all_ways(bytes(body))


@given(
    st.sampled_from(["utf-8", "utf-16", "utf-32", "latin-1", "ascii", "utf-7", "rot13", "", "UTF-8'"]),
    st.text(max_size=40),
)
def test_any_declared_encoding_raises_nothing_unannounced(encoding: str, text: str) -> None:
    declared = SEED.replace(b"UTF-8", encoding.encode(), 1).replace(b">T<", b">" + text.encode(errors="ignore") + b"<")
    read_all_ways(declared)


@given(st.text(max_size=60))
def test_the_repair_gives_a_document_and_keeps_all_legal_characters(text: str) -> None:
    legal = "".join(
        c for c in text if c in "\t\n" or "\x20" <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff"
    )
    root = etree.Element(f"{{{NAMESPACE}}}OAI-PMH")
    root.text = legal
    body = etree.tostring(root, encoding="utf-8").replace(b">", b">\x0b\x00&#x2;", 1)
    if b"</" not in body:
        return
    found, cleaned = answers.parse(body, URL)
    assert cleaned
    assert (found.text or "") == legal


@given(st.text(alphabet=string.digits, min_size=12, max_size=12), st.booleans())
def test_exactly_one_of_ten_check_digits_makes_an_isbn_13(tail: str, other: bool) -> None:
    first12 = ("979" if other else "978") + tail[3:]
    valid = [digit for digit in string.digits if isbn13(first12 + digit)]
    assert len(valid) == 1
    number = [int(digit) for digit in first12 + valid[0]]
    assert (sum(number[0::2]) + 3 * sum(number[1::2])) % 10 == 0
    assert isbn13(first12 + valid[0]) == first12 + valid[0]


@given(st.text(alphabet=string.digits, min_size=9, max_size=9))
def test_exactly_one_of_eleven_check_digits_makes_an_isbn_10(first9: str) -> None:
    valid = [(digit, isbn) for digit in "0123456789X" if (isbn := isbn13(first9 + digit))]
    assert len(valid) == 1
    digit, isbn = valid[0]
    values = [int(d) for d in first9] + [10 if digit == "X" else int(digit)]
    assert sum(weight * value for weight, value in zip(range(10, 0, -1), values, strict=True)) % 11 == 0
    assert isbn.startswith("978" + first9)
    assert isbn13(isbn) == isbn


@given(
    st.text(alphabet=string.digits, min_size=9, max_size=9),
    st.lists(st.integers(1, 12), max_size=4),
    st.sampled_from(["-", " ", "\u2010", "\u2013", ""]),
    st.sampled_from(["", "ISBN ", "ISBN: ", "isbn:", "ISBN-13: ", "ISBN13 ", "urn:isbn:", "  "]),
)
def test_hyphens_spaces_and_prefixes_change_nothing(digits: str, places: list[int], mark: str, prefix: str) -> None:
    bare = next(isbn for last in string.digits if (isbn := isbn13(f"978{digits}{last}")))
    written = bare
    for place in sorted(set(places), reverse=True):
        written = written[:place] + mark + written[place:]
    assert isbn13(prefix + written + " ") == bare


@given(st.text(max_size=40))
def test_any_text_is_an_isbn_of_thirteen_digits_or_none(text: str) -> None:
    isbn = isbn13(text)
    assert isbn == "" or (len(isbn) == 13 and isbn.isascii() and isbn.isdigit() and isbn13(isbn) == isbn)


@given(st.text(max_size=60))
def test_any_text_is_a_doi_in_its_only_form_or_none(text: str) -> None:
    found = doi(text)
    assert found == "" or (found.startswith("10.") and "/" in found and doi(found) == found == found.lower())


@given(
    st.integers(1000, 999_999_999),
    st.text(alphabet=string.ascii_letters + string.digits + "-._;()/:", min_size=1, max_size=30),
    st.sampled_from(["", "doi:", "DOI: ", "https://doi.org/", "http://dx.doi.org/", "HTTPS://DOI.ORG/"]),
)
def test_a_doi_is_the_same_however_it_is_written(registrant: int, suffix: str, prefix: str) -> None:
    assert doi(f"{prefix}10.{registrant}/{suffix}") == f"10.{registrant}/{suffix}".lower()


@given(st.integers(1, 10**7), st.integers(0, 99), st.sampled_from(["http", "https"]), st.sampled_from(["", "/"]))
def test_a_handle_is_found_in_its_url(number: int, version: int, scheme: str, end: str) -> None:
    handle = f"20.500.12854/{number}" + (f".{version}" if version else "")
    url = f"{scheme}://directory.doabooks.org/handle/{handle}{end}"
    root = etree.fromstring(f"<dc><identifier>{url}</identifier></dc>")
    assert fields_of(root).handle == handle
    assert fields_of(root).links == []
