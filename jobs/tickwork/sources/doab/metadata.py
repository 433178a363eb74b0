"""From a metadata element to the fields we store.

Elements are matched by local name in any namespace: DOAB moved its elements from `datacite:` to `dc:` in January 2025,
and other repositories use others again. The list of fields is what the library services that consume DOAB keep of a
record: title, people, subjects, description, publisher, dates, type, language, links, licence, ISBNs, DOI.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

from lxml import etree

_HANDLE_URL = re.compile(r"https?://[^/]+/handle/(20\.500\.12854/\d+(?:\.\d+)?)/?")
_DOI = re.compile(r"(?:https?://(?:dx\.)?doi\.org/|doi:\s*)?(10\.\d{4,9}/\S+)", re.IGNORECASE)
_YEAR = re.compile(r"(?<!\d)(1[4-9]\d\d|20\d\d)(?!\d)")
_OWN_LINK = re.compile(r"https?://(?:www\.|directory\.)?doabooks\.org(?:[:/?#]|$)", re.IGNORECASE)
_TAGS_REMEMBERED = 1000
_ISBN_PREFIX = re.compile(r"\A(?:urn:)?isbn(?:-?1[03](?=\s*[:\s]))?[\s:]*", re.IGNORECASE)
_ISBN_NOISE = re.compile(r"[\s\-\u2010-\u2015]")
_ISBN_SEPARATOR = re.compile(r"[/;,]")
_ISBN_13 = re.compile(r"97[89]\d{10}", re.ASCII)
_ISBN_10 = re.compile(r"\d{9}[\dX]", re.ASCII)


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
    """Read the fields out of the metadata element (for oai_dc, its `dc` child); comments must be parsed away."""
    by_name: defaultdict[str, list[etree._Element]] = defaultdict(list)
    for element in metadata:
        by_name[_local_names[element.tag]].append(element)

    def texts(name: str, kind: str | None = None) -> list[str]:
        """The texts of all elements called `name`, of those with `type` `kind` if one is given."""
        found = by_name.get(name)
        if not found:
            return []
        if kind is not None:
            found = [element for element in found if element.get("type", "") == kind]
        return _unique([text for element in found if (text := (element.text or "").strip())])

    found = Fields(
        title=_first(texts("title")),
        description="\n\n".join(texts("description")),
        creators=texts("creator"),
        editors=texts("contributor", "Editor"),
        contributors=texts("contributor", ""),
        subjects=texts("subject"),
        publisher="; ".join(texts("publisher")),
        # Plain Dublin Core has one untyped date; the untyped ones of DOAB are its own bookkeeping.
        issued=_first(texts("date", "Issued")) or _only(texts("date", "")),
        type=_first(texts("resourceType") or texts("type")),
        language=_first(texts("language")),
        licence=_first([uri for element in by_name["licenseCondition"] if (uri := element.get("uri", "").strip())]),
        series=texts("relation"),
        pages=_first(texts("pages")),
    )
    if year := _YEAR.search(found.issued):
        found.year = int(year[1])
    for name in ("alternateIdentifier", "identifierdoi", "identifier"):
        for element in by_name.get(name, ()):
            if text := (element.text or "").strip():
                _identifier(found, name, element.get("type", ""), text)
    found.links = _unique(found.links)
    found.isbns = _unique(found.isbns)
    found.isbns_rejected = _unique(found.isbns_rejected)
    return found


class _LocalNames(dict[str, str]):
    """Local name by tag, remembered: a page has thousands of elements and a few dozen tags."""

    def __missing__(self, tag: str) -> str:
        if len(self) >= _TAGS_REMEMBERED:
            self.clear()
        name = self[tag] = tag.rpartition("}")[2]
        return name


_local_names = _LocalNames()


def _identifier(found: Fields, name: str, kind: str, text: str) -> None:
    if kind == "ISBN":
        _isbns(found, text)
    elif kind == "DOI" or name == "identifierdoi":
        found.doi = found.doi or doi(text)
    elif text.startswith(("http://", "https://")):
        if handle := _HANDLE_URL.fullmatch(text):
            found.handle = found.handle or handle[1]
        if not _OWN_LINK.match(text):
            found.links.append(text)
        if not found.doi and "doi.org/" in text:
            found.doi = doi(text)
    elif _ISBN_PREFIX.match(text):
        _isbns(found, text)
    elif not found.doi and text.startswith("10."):
        found.doi = doi(text)


def _isbns(found: Fields, text: str) -> None:
    for part in _ISBN_SEPARATOR.split(text) if not text.isdigit() else (text,):
        if stripped := part.strip():
            number = isbn13(stripped)
            (found.isbns if number else found.isbns_rejected).append(number or stripped)


def isbn13(text: str) -> str:
    """The ISBN in `text` as thirteen digits (an ISBN-10 is converted), or "" if it is not a valid one.

    A prefix such as `ISBN`, `ISBN-13:` or `urn:isbn:`, spaces and hyphens are removed. Source of the check digits:
    ISO 2108.
    """
    digits = text
    if not text.isdigit():
        digits = _ISBN_NOISE.sub("", _ISBN_PREFIX.sub("", text.strip())).upper()
    if _ISBN_13.fullmatch(digits):
        return digits if _check13(digits[:12]) == digits[12] else ""
    if _ISBN_10.fullmatch(digits):
        total = sum((10 - place) * (10 if digit == "X" else int(digit)) for place, digit in enumerate(digits))
        return "978" + digits[:9] + _check13("978" + digits[:9]) if total % 11 == 0 else ""
    return ""


def _check13(first12: str) -> str:
    total = sum(map(int, first12[::2])) + 3 * sum(map(int, first12[1::2]))
    return str(-total % 10)


def doi(text: str) -> str:
    """The DOI in `text`, lower case and without a resolver's address, or "" if there is none."""
    match = _DOI.fullmatch(text.strip())
    return match[1].lower() if match else ""


def _unique(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values)) if len(values) > 1 else values


def _first(values: list[str]) -> str:
    return values[0] if values else ""


def _only(values: list[str]) -> str:
    return values[0] if len(values) == 1 else ""
