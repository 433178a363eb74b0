"""A real page of DOAB, and samples of real servers, read as an independent reading of the files has them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.kits.doab import DRAINED, HARVEST_ALL, Row, Site, real_data, well_mannered
from tests.upstreams.books import books_from_page
from tests.upstreams.oai import FakeOai
from tickwork.sources.doab import response as answers

OAI = "{http://www.openarchives.org/OAI/2.0/}"
URL = "http://example.org/oai"


def document(path: Path) -> ElementTree.Element:
    """The root element; the real page begins with an empty line, which a strict parser refuses."""
    return ElementTree.fromstring(path.read_bytes().lstrip())


def local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def unique(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))


def check_digit(first12: str) -> str:
    return str((10 - sum(int(digit) * weight for digit, weight in zip(first12, [1, 3] * 6, strict=True))) % 10)


def thirteen(text: str) -> str:
    """The ISBN as thirteen digits, empty when it is not a valid one."""
    bare = re.sub("[^0-9X]", "", text.upper())
    if len(bare) == 10 and sum((10 - i) * (10 if c == "X" else int(c)) for i, c in enumerate(bare)) % 11 == 0:
        bare = f"978{bare[:9]}{check_digit('978' + bare[:9])}"
    return bare if len(bare) == 13 and bare[12] == check_digit(bare[:12]) else ""


def independent(record: ElementTree.Element) -> Row:
    """What a record says, read with another parser and by the text of the rules."""
    header = record.find(f"{OAI}header")
    assert header is not None
    identifier = header.findtext(f"{OAI}identifier", "")
    row: Row = {
        "identifier": identifier,
        "handle": identifier.removeprefix("oai:directory.doabooks.org:"),
        "datestamp": header.findtext(f"{OAI}datestamp"),
        "deleted": int(header.get("status") == "deleted"),
    }
    children = [] if row["deleted"] else list(record.findall(f"{OAI}metadata/*/*"))

    def texts(name: str, kind: str | None = None) -> list[str]:
        found = [c for c in children if local(c) == name and (kind is None or c.get("type") == kind)]
        return [text for c in found if (text := (c.text or "").strip())]

    isbns = [part.strip() for text in texts("alternateIdentifier", "ISBN") for part in re.split("[/;,]", text)]
    links = [text for text in texts("identifier") if text.startswith("http")]
    dois = [*texts("alternateIdentifier", "DOI"), *texts("identifierdoi"), ""]
    issued = (texts("date", "Issued") or [""])[0]
    row |= {
        "title": (texts("title") or [""])[0],
        "description": "\n\n".join(unique(texts("description"))),
        "creators": unique(texts("creator")),
        "editors": unique(texts("contributor", "Editor")),
        "subjects": unique(texts("subject")),
        "publisher": "; ".join(unique(texts("publisher"))),
        "issued": issued,
        "year": int(issued[:4]) if re.match("[0-9]{4}", issued) else None,
        "type": (texts("resourceType") or [""])[0],
        "language": (texts("language") or [""])[0],
        "links": unique([link for link in links if "doabooks.org/" not in link]),
        "licence": next((uri for c in children if local(c) == "licenseCondition" and (uri := c.get("uri"))), ""),
        "isbns": unique([isbn for text in isbns if (isbn := thirteen(text))]),
        "doi": re.sub("^https?://(dx[.])?doi[.]org/", "", dois[0].lower()),
        "series": unique(texts("relation")),
        "pages": (texts("pages") or [""])[0],
    }
    return row


def test_the_real_page_is_stored_with_all_its_fields(tmp_path: Path) -> None:
    page = real_data() / "doab-check_test.xml"
    truth = [independent(record) for record in document(page).iter(f"{OAI}record")]
    with FakeOai(books_from_page(page)) as oai:
        site = Site(tmp_path, oai)
        assert site.run(*HARVEST_ALL).code == DRAINED
        well_mannered(oai)
    stored = {row["identifier"]: row for row in site.canonical()}
    assert sum(not row["deleted"] for row in stored.values()) == 95
    assert sum(row["deleted"] for row in stored.values()) == 5
    assert stored.keys() == {row["identifier"] for row in truth}
    for expected in truth:
        found = stored[expected["identifier"]]
        for name, value in expected.items():
            if name == "doi" and not value:  # a DOI may also be known by a link alone
                continue
            held = json.loads(found[name]) if isinstance(value, list) else found[name]
            assert held == value, f"{name} of {expected['identifier']}"


def test_the_real_page_is_worth_something() -> None:
    """The comparison above would hold for empty fields too: these must not be empty."""
    page = answers.page((real_data() / "doab-check_test.xml").read_bytes(), "ListRecords", URL)
    truth = [independent(record) for record in document(real_data() / "doab-check_test.xml").iter(f"{OAI}record")]
    live = [row for row in truth if not row["deleted"]]
    for name in ("title", "publisher", "year", "language", "type", "links"):
        assert sum(bool(row[name]) for row in live) >= 90, name
    for name in ("description", "creators", "isbns", "doi", "subjects", "licence"):
        assert sum(bool(row[name]) for row in live) >= 35, name
    assert any(row["editors"] for row in live)
    assert any(row["series"] for row in live)
    assert page.size == 66038
    assert page.token is not None
    assert page.token.value == "oai_dc////100"
    assert not page.cleaned


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("badArgument", "badArgument"),
        ("badResumptionToken", "badResumptionToken"),
        ("cannotDisseminateFormat", "cannotDisseminateFormat"),
        ("idDoesNotExist", "idDoesNotExist"),
        ("noRecordsMatch", "noRecordsMatch"),
        ("noSetHierarchy", "noSetHierarchy"),
    ],
)
def test_an_error_of_a_real_server_is_known_by_its_code(name: str, code: str) -> None:
    body = (real_data() / "oai_samples" / f"sickle_{name}.xml").read_bytes()
    with pytest.raises(answers.OaiError) as told:
        answers.parse(body, URL)
    assert told.value.code == code


def test_an_error_of_no_known_code_is_still_an_error() -> None:
    with pytest.raises(answers.OaiError):
        answers.parse((real_data() / "oai_samples" / "sickle_undefinedError.xml").read_bytes(), URL)


@pytest.mark.parametrize("verb", ["ListRecords", "ListIdentifiers"])
def test_the_lists_of_a_real_server_are_read_whole(verb: str) -> None:
    for path in sorted((real_data() / "oai_samples").glob(f"sickle_{verb}*.xml")):
        if path.name in ("sickle_ListRecordsBroken.xml", "sickle_ListRecords4.xml"):
            continue
        root = document(path)
        page = answers.page(path.read_bytes(), verb, URL)
        headers = list(root.iter(f"{OAI}header"))
        assert [record.identifier for record in page.records] == [h.findtext(f"{OAI}identifier") for h in headers]
        assert [record.deleted for record in page.records] == [h.get("status") == "deleted" for h in headers]
        token = root.find(f".//{OAI}resumptionToken")
        assert (page.token.value if page.token else "") == ("" if token is None else (token.text or "").strip())
        assert not page.cleaned


def test_single_records_and_identify_of_a_real_server_are_read() -> None:
    samples = real_data() / "oai_samples"
    for name in ("sickle_GetRecord", "sickle_GetRecord_utf8test"):
        root = document(samples / f"{name}.xml")
        record = answers.record((samples / f"{name}.xml").read_bytes(), URL)
        assert record.identifier == root.findtext(f".//{OAI}identifier")
        assert record.metadata is not None
    identity = answers.identity((samples / "sickle_Identify.xml").read_bytes(), URL)
    root = document(samples / "sickle_Identify.xml")
    assert identity.earliest == root.findtext(f".//{OAI}earliestDatestamp")
    assert identity.day_granularity == (root.findtext(f".//{OAI}granularity") == "YYYY-MM-DD")


def test_what_is_no_answer_at_all_is_unreadable() -> None:
    for name in ("sickle_ListRecordsBroken", "repository"):
        with pytest.raises(answers.Unreadable):
            answers.parse((real_data() / "oai_samples" / f"{name}.xml").read_bytes(), URL)


def test_headers_that_name_no_record_are_counted() -> None:
    body = (real_data() / "oai_samples" / "sickle_ListRecords4.xml").read_bytes()
    assert answers.page(body, "ListRecords", URL).broken


def test_bad_bytes_are_repaired_once_and_told_of() -> None:
    body = (real_data() / "oai_samples" / "badbytes.xml").read_bytes()
    with pytest.raises(ElementTree.ParseError):
        ElementTree.fromstring(body)
    root, cleaned = answers.parse(body, URL)
    assert cleaned
    assert "the moduli space of N=2 theories" in "".join(root.itertext())
    assert answers.record(body, URL).identifier == "oai:arXiv.org:hep-th/0001001"
