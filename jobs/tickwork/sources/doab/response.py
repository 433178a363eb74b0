"""Reading an OAI-PMH answer: strict XML, the right root, errors by their code.

A body that is not a whole, well-formed OAI-PMH document raises Unreadable; it is never an empty or a short list.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lxml import etree

from tickwork.contract import times
from tickwork.sources.doab.errors import OaiError, Unreadable

OAI = "{http://www.openarchives.org/OAI/2.0/}"

_HEADER, _METADATA, _IDENTIFIER = OAI + "header", OAI + "metadata", OAI + "identifier"
_DATESTAMP_TAG = OAI + "datestamp"

_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_DECLARATION = re.compile(rb"<\?xml[^>]*\?>")
_ENCODING = re.compile(rb"\sencoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")
_CHARACTER_REFERENCE = re.compile(r"&#(?:x([0-9A-Fa-f]{1,8})|([0-9]{1,8}));")
_DATESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)(?:(T\d\d:\d\d:\d\d)(?:\.\d+)?Z)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Record:
    """A record, or a header alone; `datestamp` is UTC as the server wrote it, to its granularity.

    `metadata` is None for a header and for a deleted record; a live record without it is a fault of the server's.
    """

    identifier: str
    datestamp: str
    deleted: bool
    metadata: etree._Element | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A resumption token; `expires` is its expirationDate as the server wrote it, empty without one."""

    value: str
    expires: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of a list verb. `token` is None at the end of the list; `size` is the list's, where told."""

    response_date: str
    records: list[Record]
    token: Token | None = None
    size: int | None = None
    cleaned: bool = False
    """True if illegal characters had to be removed to read it."""
    ended: bool = True
    """False if the list stops without the empty token that ends a list of several pages."""
    broken: int = 0
    """How many headers had no usable identifier or datestamp, and were left out."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What Identify says that matters here; `day_granularity` is False for seconds."""

    response_date: str
    earliest: str
    day_granularity: bool


def parse(body: bytes, url: str) -> tuple[etree._Element, bool]:
    """The root of the document in `body`, and whether illegal characters were removed to read it.

    Raises Unreadable, and OaiError for an answer that is an error.
    """
    text = body.lstrip(b"\xef\xbb\xbf \t\r\n")
    if b"<!DOCTYPE" in text[:4096] and b"<html" not in text[:4096].lower():
        raise Unreadable(f"{url} answered with a document type declaration, which OAI-PMH does not allow")
    cleaned = False
    try:
        root = _root(text)
    except etree.XMLSyntaxError as error:
        repaired = _without_illegal(text)
        if repaired == text:
            raise Unreadable(f"{url} answered with {_what(text)}: {error.msg}") from error
        try:
            root, cleaned = _root(repaired), True
        except etree.XMLSyntaxError as second:
            raise Unreadable(f"{url} answered with {_what(text)}: {second.msg}") from second
    if root.getroottree().docinfo.internalDTD is not None:
        raise Unreadable(f"{url} answered with {_what(text)}")
    if root.tag != OAI + "OAI-PMH":
        raise Unreadable(f"{url} answered with {_what(text)}: the root is {root.tag}")
    error_element = root.find(OAI + "error")
    if error_element is not None:
        raise OaiError(error_element.get("code", "unknown"), " ".join((error_element.text or "").split())[:300])
    return root, cleaned


def page(body: bytes, verb: str, url: str) -> Page:
    """Read an answer to ListRecords or ListIdentifiers."""
    root, cleaned = parse(body, url)
    listing = root.find(OAI + verb)
    if listing is None:
        raise Unreadable(f"{url} answered without a {verb} element")
    if verb == "ListRecords":
        listed = [_record(element) for element in listing.iterchildren(OAI + "record")]
    else:
        listed = [_header(element) for element in listing.iterchildren(OAI + "header")]
    records = [record for record in listed if record is not None]
    token, size = None, None
    element = listing.find(OAI + "resumptionToken")
    if element is not None:
        size = _number(element.get("completeListSize"))
        if value := (element.text or "").strip():
            token = Token(value, element.get("expirationDate", ""))
    broken = len(listed) - len(records)
    return Page(_response_date(root, url), records, token, size, cleaned, element is not None, broken)


def record(body: bytes, url: str) -> Record:
    """Read an answer to GetRecord."""
    root, _ = parse(body, url)
    element = root.find(f"{OAI}GetRecord/{OAI}record")
    if element is None:
        raise Unreadable(f"{url} answered without a record")
    read = _record(element)
    if read is None:
        raise Unreadable(f"{url} answered with a record without identifier or datestamp")
    return read


def identity(body: bytes, url: str) -> Identity:
    """Read an answer to Identify."""
    root, _ = parse(body, url)
    element = root.find(OAI + "Identify")
    if element is None:
        raise Unreadable(f"{url} answered without an Identify element")
    granularity = (element.findtext(OAI + "granularity") or "").strip()
    earliest = (element.findtext(OAI + "earliestDatestamp") or "").strip()
    return Identity(
        _response_date(root, url),
        _existing(_whole_seconds(earliest)) or "1970-01-01",
        granularity.upper() == "YYYY-MM-DD",
    )


def _root(text: bytes) -> etree._Element:
    # No entities, no network, no DTD, and libxml2's own limits on depth and size stay on.
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )
    return etree.fromstring(text, parser)


def _record(element: etree._Element) -> Record | None:
    header = metadata = None
    for child in element:
        if child.tag == _HEADER:
            header = child
        elif child.tag == _METADATA:
            metadata = child
    bare = _header(header) if header is not None else None
    if bare is None or bare.deleted or metadata is None or not len(metadata):
        return bare
    return Record(bare.identifier, bare.datestamp, False, metadata[0])


def _header(element: etree._Element) -> Record | None:
    identifier = datestamp = ""
    for child in element:
        if child.tag == _IDENTIFIER:
            identifier = (child.text or "").strip()
        elif child.tag == _DATESTAMP_TAG:
            datestamp = (child.text or "").strip()
    stamp = _whole_seconds(datestamp)
    return Record(identifier, stamp, element.get("status") == "deleted") if identifier and stamp else None


def _whole_seconds(datestamp: str) -> str:
    """The datestamp without fractions of a second, or "" if it is none."""
    match = _DATESTAMP.fullmatch(datestamp)
    if not match:
        return ""
    return f"{match[1]}{match[2]}Z" if match[2] else match[1]


def _existing(datestamp: str) -> str:
    """The datestamp, or "" if the calendar has no such day or hour."""
    try:
        times.parse(datestamp)
    except ValueError:
        return ""
    return datestamp


def _response_date(root: etree._Element, url: str) -> str:
    text = (root.findtext(OAI + "responseDate") or "").strip()
    try:
        return times.show(times.parse(text))
    except ValueError as error:
        raise Unreadable(f"{url} answered without a valid responseDate: {text!r}") from error


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 12 else None


def _without_illegal(text: bytes) -> bytes:
    """`text` as UTF-8 without the characters XML forbids, raw or as references; broken bytes become U+FFFD."""
    declaration = _DECLARATION.match(text)
    named = _ENCODING.search(declaration[0]) if declaration else None
    encoding = named[1].decode() if named else "utf-8"
    try:
        decoded = text[declaration.end() if declaration else 0 :].decode(encoding, errors="replace")
    except LookupError:
        decoded = text.decode("utf-8", errors="replace")
    decoded = _ILLEGAL.sub("", decoded)

    def legal(match: re.Match[str]) -> str:
        number = int(match[1], 16) if match[1] else int(match[2])
        allowed = (
            number in (9, 10, 13) or 32 <= number < 0xD800 or 0xE000 <= number < 0xFFFE or 0xFFFF < number < 0x110000
        )
        return match[0] if allowed else ""

    return _CHARACTER_REFERENCE.sub(legal, decoded).encode("utf-8")


def _what(text: bytes) -> str:
    head = text[:1000].lower()
    if not text:
        return "an empty body"
    if b"<html" in head or b"<!doctype html" in head:
        return "an HTML page instead of XML"
    return "XML that is not a complete OAI-PMH document"
