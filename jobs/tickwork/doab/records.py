"""From a metadata element to the fields we store.

Elements are matched by local name in any namespace: DOAB moved its elements from `datacite:` to `dc:` in January 2025,
and other repositories use others again. The list of fields is what the library services that consume DOAB keep of a
record: title, people, subjects, description, publisher, dates, type, language, links, licence, ISBNs, DOI.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from lxml import etree

_HANDLE_URL = re.compile(r"https?://[^/]+/handle/(20\.500\.12854/\d+(?:\.\d+)?)/?")
_DOI = re.compile(r"(?:https?://(?:dx\.)?doi\.org/|doi:\s*)?(10\.\d{4,9}/\S+)", re.IGNORECASE)
_YEAR = re.compile(r"(?<!\d)(1[4-9]\d\d|20\d\d)(?!\d)")
_OWN_LINKS = ("doabooks.org", "www.doabooks.org", "directory.doabooks.org")


@dataclass(slots=True)
class Fields:
    """The metadata of a live record. Lists keep the order of the record, without repetition."""

    title: str = ""
    description: str = ""
    creators: list[str] = field(default_factory=list)
    editors: list[str] = field(default_factory=list)
    contributors: list[str] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    publisher: str = ""
    issued: str = ""
    year: int | None = None
    type: str = ""
    language: str = ""
    links: list[str] = field(default_factory=list)
    licence: str = ""
    isbns: list[str] = field(default_factory=list)
    """ISBN-13 of thirteen digits."""
    isbns_rejected: list[str] = field(default_factory=list)
    """What called itself an ISBN and has a wrong length or check digit."""
    doi: str = ""
    """Lower case, without a resolver's address."""
    series: list[str] = field(default_factory=list)
    pages: str = ""
    handle: str = ""
    """Handle found in an identifier URL, for repositories whose OAI identifier has none."""


def fields_of(metadata: etree._Element) -> Fields:
    """Read the fields out of the metadata element (for oai_dc, its `dc` child)."""
    found = Fields()
    titles, descriptions, publishers, dates, languages, types = [], [], [], [], [], []
    for element in metadata.iterchildren():
        tag = element.tag
        if not isinstance(tag, str):
            continue
        name = tag.rpartition("}")[2]
        text = (element.text or "").strip()
        kind = element.get("type", "")
        if name == "licenseCondition":
            uri = element.get("uri", "").strip()
            if uri and not found.licence:
                found.licence = uri
        elif not text:
            continue
        elif name == "title":
            titles.append(text)
        elif name == "creator":
            found.creators.append(text)
        elif name == "contributor":
            (found.editors if kind == "Editor" else found.contributors).append(text)
        elif name == "subject":
            found.subjects.append(text)
        elif name == "description":
            descriptions.append(text)
        elif name == "publisher":
            publishers.append(text)
        elif name == "date":
            if kind == "Issued":
                found.issued = found.issued or text
            else:
                dates.append(text)
        elif name in ("resourceType", "type"):
            types.append(text)
        elif name == "language":
            languages.append(text)
        elif name in ("identifier", "alternateIdentifier", "identifierdoi"):
            _identifier(found, name, kind, text)
        elif name == "relation":
            found.series.append(text)
        elif name == "pages":
            found.pages = found.pages or text
    found.title = titles[0] if titles else ""
    found.description = "\n\n".join(_unique(descriptions))
    found.publisher = "; ".join(_unique(publishers))
    found.language = languages[0] if languages else ""
    found.type = types[0] if types else ""
    if not found.issued and len(dates) == 1:
        found.issued = dates[0]  # plain Dublin Core has one untyped date; DOAB's untyped ones are its own bookkeeping
    if year := _YEAR.search(found.issued):
        found.year = int(year[1])
    for name in ("creators", "editors", "contributors", "subjects", "links", "isbns", "isbns_rejected", "series"):
        setattr(found, name, _unique(getattr(found, name)))
    return found


def _identifier(found: Fields, name: str, kind: str, text: str) -> None:
    if kind == "ISBN":
        _isbns(found, text)
    elif kind == "DOI" or name == "identifierdoi":
        found.doi = found.doi or doi(text)
    elif text.lower().startswith(("urn:isbn:", "isbn")):
        _isbns(found, text)
    elif text.startswith(("http://", "https://")):
        if handle := _HANDLE_URL.fullmatch(text):
            found.handle = found.handle or handle[1]
        if not _is_own(text):
            found.links.append(text)
        if not found.doi and "doi.org/" in text:
            found.doi = doi(text)
    elif not found.doi and text.startswith("10."):
        found.doi = doi(text)


def _is_own(url: str) -> bool:
    try:
        return (urlsplit(url).hostname or "") in _OWN_LINKS
    except ValueError:
        return False


def _isbns(found: Fields, text: str) -> None:
    for part in re.split(r"[/;,]", text):
        if stripped := part.strip():
            number = isbn13(stripped)
            (found.isbns if number else found.isbns_rejected).append(number or stripped)


def isbn13(text: str) -> str:
    """The ISBN in `text` as thirteen digits (an ISBN-10 is converted), or "" if it is not a valid one.

    A prefix such as `ISBN`, `ISBN-13:` or `urn:isbn:`, spaces and hyphens are removed. Source of the check digits:
    ISO 2108.
    """
    bare = re.sub(r"^(?:urn:)?isbn(?:-?1[03](?=\s*[:\s]))?[\s:]*", "", text.strip(), flags=re.IGNORECASE)
    digits = re.sub(r"[\s\-\u2010-\u2015]", "", bare).upper()
    if re.fullmatch(r"97[89]\d{10}", digits, re.ASCII):
        return digits if _check13(digits[:12]) == digits[12] else ""
    if re.fullmatch(r"\d{9}[\dX]", digits, re.ASCII):
        total = sum((10 - place) * (10 if digit == "X" else int(digit)) for place, digit in enumerate(digits))
        return "978" + digits[:9] + _check13("978" + digits[:9]) if total % 11 == 0 else ""
    return ""


def _check13(first12: str) -> str:
    total = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(first12))
    return str(-total % 10)


def doi(text: str) -> str:
    """The DOI in `text`, lower case and without a resolver's address, or "" if there is none."""
    match = _DOI.fullmatch(text.strip())
    return match[1].lower() if match else ""


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
