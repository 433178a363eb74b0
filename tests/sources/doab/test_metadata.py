"""The fields of a record, in the older and the newer namespaces, and the identifiers of books."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import asdict

import pytest

from tests.upstreams.books import NEW_DIALECT, OLD_DIALECT, Work, generated_books, oai_dc
from tickwork.sources.doab import response as answers
from tickwork.sources.doab.metadata import Fields, doi, fields_of, isbn13

WORK = Work(
    handle="20.500.12854/77",
    title="Food <systems> & “law”",
    added="2021-02-12T08:41:45Z",
    creators=["Müller, Ansgar", "Müller, Ansgar", "d’Aragon, Željka"],
    editors=["王, Wei"],
    classes=["HB1-3840"],
    keywords=["climate change", "Ὅμηρος"],
    description="A < B & C",
    issued="2009-11",
    kind="book",
    isbns=["9783428532544", "ISBN 0-306-40615-2; 978-3-428-53254-5"],
    language=["ger", "eng"],
    series="Schriften",
    licence="by-nc",
    links=[
        "https://press.example.org/b?id=1&x=2",
        "https://directory.doabooks.org/x",
        "https://press.example.org/b?id=1&x=2",
    ],
    publisher="Duncker & Humblot",
    doi="10.3790/978-3-428-53254-4X",
    pages="264",
)
EXPECTED = Fields(
    title="Food <systems> & “law”",
    description="A < B & C",
    creators=["Müller, Ansgar", "d’Aragon, Željka"],
    editors=["王, Wei"],
    subjects=["HB1-3840", "climate change", "Ὅμηρος"],
    publisher="Duncker & Humblot",
    issued="2009-11",
    year=2009,
    type="book",
    language="ger",
    links=["https://press.example.org/b?id=1&x=2"],
    licence="https://creativecommons.org/licenses/by-nc/4.0/",
    isbns=["9783428532544", "9780306406157"],
    isbns_rejected=["978-3-428-53254-5"],
    doi="10.3790/978-3-428-53254-4x",
    series=["Schriften"],
    pages="264",
    handle="20.500.12854/77",
)


def read(xml: str) -> Fields:
    """The fields of the metadata element `xml`, through the reading of a whole answer."""
    answer = (
        '<OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/"><GetRecord><record><header><identifier>oai:x:1'
        f"</identifier><datestamp>2026-01-01</datestamp></header><metadata>{xml}</metadata></record></GetRecord>"
        "</OAI-PMH>"
    )
    metadata = answers.record(answer.encode(), "http://example.org/oai").metadata
    assert metadata is not None
    return fields_of(metadata)


def dc(inside: str) -> Fields:
    return read(f'<x:dc xmlns:x="urn:any" xmlns:dc="http://purl.org/dc/elements/1.1/">{inside}</x:dc>')


@pytest.mark.parametrize("dialect", [OLD_DIALECT, NEW_DIALECT], ids=["datacite", "dc"])
def test_every_field_is_read_in_the_older_and_the_newer_namespaces(dialect: object) -> None:
    xml = oai_dc(WORK, dialect)  # type: ignore[arg-type]
    assert asdict(read(xml)) == asdict(EXPECTED)


def test_both_namespaces_occur_among_generated_records_and_say_the_same() -> None:
    books = [book for book in generated_books(400, seed=3) if not book.deleted]
    xml = [book.metadata_xml for book in books if isinstance(book.metadata_xml, str)]
    older, newer = ([x for x in xml if ("datacite:title" in x) == old] for old in (True, False))
    assert older
    assert newer
    for x in older:
        # datacite: becomes dc:, as DOAB's move of January 2025 did
        assert read(x) == read(x.replace("<datacite:", "<dc:").replace("</datacite:", "</dc:"))


def test_an_element_of_any_other_namespace_is_read_by_its_local_name() -> None:
    assert read('<r xmlns:q="urn:q"><q:title>T</q:title><q:creator>C</q:creator></r>').creators == ["C"]
    assert read("<r><title>T</title></r>").title == "T"


def test_comments_instructions_and_empty_elements_say_nothing() -> None:
    assert dc("<!-- x --><?y z?><dc:title> </dc:title><dc:title>T</dc:title><dc:creator/>") == Fields(title="T")


def test_only_an_unambiguous_date_is_taken_for_the_year_of_issue() -> None:
    assert dc("<dc:date>2014</dc:date>").year == 2014
    assert dc("<dc:date>2014</dc:date><dc:date>2021-02-12T08:41:45Z</dc:date>").year is None
    assert dc('<dc:date>2021-02-12T08:41:45Z</dc:date><dc:date type="Issued">c1987.</dc:date>').year == 1987
    assert dc('<dc:date type="Issued">n.d. 12345</dc:date>').year is None


def test_a_doi_is_found_in_a_link_when_nothing_else_tells_it() -> None:
    found = dc("<dc:identifier>https://doi.org/10.1234/Ab</dc:identifier>")
    assert found.doi == "10.1234/ab"
    assert found.links == ["https://doi.org/10.1234/Ab"]
    typed = '<dc:alternateIdentifier type="DOI">10.5/no</dc:alternateIdentifier>'
    assert dc(typed + "<dc:identifier>10.1234/cd</dc:identifier>").doi == "10.1234/cd"


def test_links_of_the_repository_itself_are_left_out_and_broken_ones_do_no_harm() -> None:
    own = ["https://directory.doabooks.org/handle/20.500.12854/5", "http://www.doabooks.org/doab?x"]
    others = ["https://notdoabooks.org/1", "http://[::1/2", "http://x.org/?u=doabooks.org"]
    found = dc("".join(f"<dc:identifier>{url}</dc:identifier>" for url in own + others))
    assert found.links == others
    assert found.handle == "20.500.12854/5"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9783428532544", "9783428532544"),
        ("ISBN 978-3-428-53254-4", "9783428532544"),
        ("ISBN-13: 978 3 428 53254 4", "9783428532544"),
        ("isbn:9783428532544", "9783428532544"),
        ("urn:isbn:9783428532544", "9783428532544"),
        ("978\u20113\u2011428\u201153254\u20114", "9783428532544"),
        ("0-306-40615-2", "9780306406157"),
        ("ISBN-10: 080442957X", "9780804429573"),
        ("080442957x", "9780804429573"),
        ("9783428532545", ""),
        ("0-306-40615-3", ""),
        ("X804429570", ""),
        ("1234567890123", ""),
        ("978342853254", ""),
        ("97834285325440", ""),
        ("٩٧٨٣٤٢٨٥٣٢٥٤٤", ""),
        ("", ""),
        ("ISBN", ""),
    ],
)
def test_an_isbn_becomes_thirteen_digits_or_nothing(text: str, expected: str) -> None:
    assert isbn13(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.4000/Books.Ausonius.5238", "10.4000/books.ausonius.5238"),
        ("https://doi.org/10.1234/a(b)c;d", "10.1234/a(b)c;d"),
        ("http://dx.doi.org/10.1234/X", "10.1234/x"),
        ("doi: 10.1234/x", "10.1234/x"),
        ("DOI:10.1234/x", "10.1234/x"),
        ("https://example.org/10.1234/x", ""),
        ("10.12/x", ""),
        ("10.1234/", ""),
        ("", ""),
    ],
)
def test_a_doi_is_lower_case_and_without_a_resolver(text: str, expected: str) -> None:
    assert doi(text) == expected


def test_generated_records_keep_what_they_said() -> None:
    for book in generated_books(200, seed=5):
        if not book.deleted:
            found = read(str(book.metadata_xml))
            assert found.handle == book.handle
            assert found.title
            assert found.year is not None
            assert 1990 <= found.year <= dt.datetime(2026, 12, 31, tzinfo=dt.UTC).year
            assert all(re.fullmatch("97[89][0-9]{10}", isbn) for isbn in found.isbns)
