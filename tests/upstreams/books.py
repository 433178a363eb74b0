"""Book records as DOAB serves them: generated, or read from the real files.

The XML is written in the layout of a real `oai_dc` page of directory.doabooks.org: elements of four
namespaces side by side, children in the order DSpace's crosswalk gives them.
"""

import csv
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.sax.saxutils import escape, unescape

BOOK_SETS = ("com_20.500.12854_5", "col_20.500.12854_6")
CHAPTER_SETS = ("com_20.500.12854_7", "col_20.500.12854_8")

# Handles start far above the real ones, and apart from each other, so that the sources can be mixed.
FIRST_GENERATED = 1_000_000
FIRST_FROM_CSV = 2_000_000

FIRST_DATESTAMP = datetime(2020, 4, 1, tzinfo=UTC)
LAST_DATESTAMP = datetime(2026, 9, 30, tzinfo=UTC)
NAMESPACES_MOVED = datetime(2025, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Book:
    """One record of the repository; `metadata_xml` is the child of `<metadata>`, unused if deleted."""

    identifier: str
    handle: str
    datestamp: datetime
    deleted: bool = False
    metadata_xml: str | bytes = ""
    sets: tuple[str, ...] = BOOK_SETS


@dataclass
class Work:
    """What a record says of a book, before it is written as XML."""

    handle: str
    title: str
    added: str
    creators: list[str] = field(default_factory=list)
    editors: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    keywords: list[str] = field(default_factory=list)
    description: str = ""
    issued: str = ""
    kind: str = "book"
    isbns: list[str] = field(default_factory=list)
    language: list[str] = field(default_factory=list)
    series: str = ""
    licence: str = ""
    links: list[str] = field(default_factory=list)
    publisher: str = ""
    doi: str = ""
    pages: str = ""


# --- XML ---------------------------------------------------------------------------------------------

_ILLEGAL_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml_text(text: str) -> str:
    """The text escaped for XML 1.0 (content or quoted attribute), without the characters it forbids."""
    return escape(_ILLEGAL_IN_XML.sub("", text), {'"': "&quot;"})


_FIXED_NAMESPACES = (
    'xmlns:oai_dc="http://www.openarchives.org/OAI/2.0/oai_dc/" xmlns:doc="http://www.lyncode.com/xoai"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
)
_DC_NAMESPACES = "".join(
    f' xmlns:{prefix}="http://purl.org/dc/elements/1.1/"' for prefix in ("oapen", "publisher", "grantor", "dc")
)
_SCHEMA = (
    ' xsi:schemaLocation="http://www.openarchives.org/OAI/2.0/oai_dc/ http://www.openarchives.org/OAI/2.0/oai_dc.xsd"'
)


@dataclass(frozen=True)
class Dialect:
    """Which prefixes a record's elements have, and what they are bound to."""

    datacite: str
    namespaces: str


OLD_DIALECT = Dialect(
    "datacite",
    ' xmlns:datacite="https://schema.datacite.org/meta/kernel-4.1/metadata.xsd"'
    ' xmlns:oaire="https://raw.githubusercontent.com/rcic/openaire4/master/schemas/4.0/oaire.xsd"',
)
NEW_DIALECT = Dialect("dc", ' xmlns:oaire="http://namespace.openaire.eu/schema/oaire/"')

LICENCES = {
    "by": "Attribution 4.0 International",
    "by-sa": "Attribution-ShareAlike 4.0 International",
    "by-nd": "Attribution-NoDerivatives 4.0 International",
    "by-nc": "Attribution-NonCommercial 4.0 International",
    "by-nc-sa": "Attribution-NonCommercial-ShareAlike 4.0 International",
    "by-nc-nd": "Attribution-NonCommercial-NoDerivatives 4.0 International",
}


def oai_dc(work: Work, dialect: Dialect = OLD_DIALECT) -> str:
    """The `<oai_dc:dc>` element of a work."""
    lines: list[str] = []

    def add(tag: str, values: str | Iterable[str], attribute: str = "") -> None:
        for value in [values] if isinstance(values, str) else values:
            if value:
                lines.append(f"<{tag}{attribute}>{xml_text(value)}</{tag}>")

    datacite = dialect.datacite
    add(f"{datacite}:title", work.title)
    add(f"{datacite}:creator", work.creators)
    add(f"{datacite}:contributor", work.editors, ' type="Editor"')
    add("dc:subject", work.classes)
    add(f"{datacite}:subject", work.keywords)
    add("dc:description", work.description)
    add("dc:date", [work.added, work.added])
    add(f"{datacite}:date", work.issued, ' type="Issued"')
    add("oaire:resourceType", work.kind)
    add(f"{datacite}:alternateIdentifier", work.isbns, ' type="ISBN"')
    add(f"{datacite}:identifier", f"https://directory.doabooks.org/handle/{work.handle}", ' type="URL"')
    add("dc:language", work.language)
    add("dc:relation", work.series)
    add("dc:format", "image/jpeg")
    _add_licence(lines, work.licence)
    add("dc:identifier", work.links)
    add("dc:publisher", work.publisher)
    add(f"{datacite}:alternateIdentifier", work.doi, ' type="DOI"')
    add("oapen:identifierdoi", work.doi)
    add("oapen:relationisbn", work.isbns)
    add("oapen:pages", work.pages)
    add(f"{datacite}:rights", "open access", ' uri="http://purl.org/coar/access_right/c_abf2"')
    body = "\n".join(lines)
    return f"<oai_dc:dc {_FIXED_NAMESPACES}{dialect.namespaces}{_DC_NAMESPACES}{_SCHEMA}>\n{body}\n</oai_dc:dc>"


def _add_licence(lines: list[str], code: str) -> None:
    """Append the licence as DOAB writes it, its name between line breaks and indentation."""
    if code in LICENCES:
        uri = f"https://creativecommons.org/licenses/{code}/4.0/"
        lines.append(
            f'<oaire:licenseCondition uri="{uri}">\n              {LICENCES[code]}\n'
            "            </oaire:licenseCondition>"
        )


def _record(work: Work, datestamp: datetime, deleted: bool = False) -> Book:
    dialect = NEW_DIALECT if datestamp >= NAMESPACES_MOVED else OLD_DIALECT
    return Book(
        identifier=f"oai:directory.doabooks.org:{work.handle}",
        handle=work.handle,
        datestamp=datestamp,
        deleted=deleted,
        metadata_xml="" if deleted else oai_dc(work, dialect),
        sets=CHAPTER_SETS if work.kind == "chapter" else BOOK_SETS,
    )


# --- generated records -------------------------------------------------------------------------------


def _words(text: str) -> list[str]:
    return re.split(r"\s*[|\n]\s*", text.strip())


_TOPICS = _words("""
    archaeology | migration | Wirtschaftspolitik | géographie antique | linguística | Übersetzung
    climate change | kinship & law | Šahovnica | machine learning | medieval manuscripts | santé publique
    colonial archives | política fiscal | soil chemistry | gender studies | Ὅμηρος | музыка | 女性史
    food <systems> | urban planning | digital humanities | Ökologie
""")
_PLACES = _words("""
    Sápmi | Brasil | Kraków | the Balkans | Côte d’Ivoire | Québec | Zürich | Timor-Leste | 東京 | South Asia
""")
_FORMS = (
    "A History of {topic} in {place}",
    "{place}: {topic} and {other}",
    "{topic} – Beiträge zu {other}",
    "L’{topic} en {place} : une approche « nouvelle »",
    '"{topic}" & the Politics of {other}',
    "Handbook of {topic}, vol. {number}",
    "Estudios sobre {topic} en {place}",
    "{topic}",
)
_SENTENCES = (
    "This volume brings together essays on {topic} and {other} from scholars working in {place}.",
    "Der Band untersucht, wie sich {topic} in {place} seit {year} verändert hat.",
    "Cet ouvrage traite de {topic} à partir de sources inédites (p < 0,05 dans les cas étudiés).",
    "It argues that {other} can't be understood without the archives of {place}; see §{number}.",
    "O livro apresenta {number} estudos de caso sobre {topic}, com atenção especial a {place}.",
    "The authors draw on fieldwork of {number} months and on the “grey” literature about {other}.",
)
_GIVEN = _words("""
    Ansgar | María José | Jean-Luc | Željka | Þóra | Ana | Wei | Olena | Søren | Ifeoma | François | Gülşen
""")
_FAMILY = _words("""
    Müller | O’Brien | García Lorca | Orožen Adamič | Nguyễn | d’Aragon | Kovács | Smith | Łukasiewicz | 王
""")
_PUBLISHERS = _words("""
    Duncker & Humblot | Ledizioni | Open Humanities Press | Ausonius Éditions | Založba ZRC | De Gruyter
    SciELO Books - Editora FIOCRUZ | Presses de l’Ifpo | Frontiers Media SA | MDPI
""")
_CLASSES = _words("HB1-3840 | PK1-9601 | D1-2009 | GN301-674 | QL1-991 | thema EDItEUR::N History and Archaeology")
_LANGUAGES = _words("eng | ger | fre | spa | por | ita | dut | slv | fin | nor")
_LICENCE_CODES = [*LICENCES, "", ""]


def generated_books(n: int, seed: int = 1) -> list[Book]:
    """`n` made-up records, the same for the same seed; handles rise with the day of adding.

    About 5 % are deleted, a third were edited after adding, and those last changed in 2025 or later
    have the newer namespaces.
    """
    rng = random.Random(seed)
    span = int((LAST_DATESTAMP - FIRST_DATESTAMP).total_seconds())
    added = sorted(rng.randrange(span) for _ in range(n))
    return [_generated(rng, FIRST_GENERATED + i, offset, span) for i, offset in enumerate(added)]


def _generated(rng: random.Random, number: int, added: int, span: int) -> Book:
    changed = rng.randrange(added, span) if rng.random() < 0.33 else added
    work = _generated_work(rng, f"20.500.12854/{number}", FIRST_DATESTAMP + timedelta(seconds=added))
    return _record(work, FIRST_DATESTAMP + timedelta(seconds=changed), deleted=rng.random() < 0.05)


def _generated_work(rng: random.Random, handle: str, added: datetime) -> Work:
    words = {
        "topic": rng.choice(_TOPICS),
        "other": rng.choice(_TOPICS),
        "place": rng.choice(_PLACES),
        "number": rng.randrange(2, 40),
        "year": rng.randrange(1789, 2020),
    }
    title = rng.choice(_FORMS).format(**words)
    isbn = f"978{rng.randrange(10**9, 10**10)}"
    edited = rng.random() < 0.3
    people = [_name(rng) for _ in range(rng.choice((1, 1, 2, 2, 3, 5)))]
    doi = "" if rng.random() < 0.13 else f"10.{rng.randrange(1000, 9999)}/{isbn}"
    return Work(
        handle=handle,
        title=title[0].upper() + title[1:],
        added=added.strftime("%Y-%m-%dT%H:%M:%SZ"),
        creators=[] if edited else people,
        editors=people if edited else [],
        classes=[rng.choice(_CLASSES)] if rng.random() < 0.5 else [],
        keywords=rng.sample(_TOPICS, rng.randrange(0, 8)),
        description=" ".join(s.format(**words) for s in rng.choices(_SENTENCES, k=rng.randrange(3, 16))),
        issued=str(added.year - rng.randrange(0, 12)),
        kind="chapter" if rng.random() < 0.06 else "book",
        isbns=[isbn] if rng.random() < 0.9 else [f"ISBN {isbn}", f"{isbn[:-1]}X; {isbn}"],
        language=[rng.choice(_LANGUAGES)],
        series=f"{words['other']} series" if rng.random() < 0.3 else "",
        licence=rng.choice(_LICENCE_CODES),
        links=[f"https://press.example.org/book?id={isbn}&lang=en"],
        publisher=rng.choice(_PUBLISHERS),
        doi=doi,
        pages=str(rng.randrange(80, 700)),
    )


def _name(rng: random.Random) -> str:
    given, family = rng.choice(_GIVEN), rng.choice(_FAMILY)
    return f"{family}, {given}" if rng.random() < 0.7 else f"{given} {family}"


# --- the real files ----------------------------------------------------------------------------------

_LANGUAGE_CODES = {
    name: code
    for code, names in {
        "eng": ("english", "en"),
        "fre": ("french", "fr"),
        "ger": ("german", "de", "deutsch"),
        "por": ("portuguese", "pt"),
        "spa": ("spanish", "es"),
        "ita": ("italian", "it"),
        "dut": ("dutch", "nl"),
    }.items()
    for name in names
}
_EDITOR_MARK = re.compile(r"\s*\((?:eds?|editors?)\.?\)", re.IGNORECASE)


def books_from_csv(path: str | Path) -> list[Book]:
    """Every row of DOAB's own CSV export of 2018, untidy ones too.

    The export has no handles, so the row's number makes one. A date that cannot be read becomes
    the row's minute of 2012-04-11.
    """
    with Path(path).open(encoding="utf-8-sig", newline="") as lines:
        return [_from_row(number, row) for number, row in enumerate(csv.DictReader(lines))]


def _from_row(number: int, row: dict[str, str]) -> Book:
    def cell(name: str) -> str:
        return (row.get(name) or "").strip()

    def parts(name: str, separators: str = r"[;,^]") -> list[str]:
        return [part.strip() for part in re.split(separators, cell(name)) if part.strip()]

    datestamp = _added_on(cell("Added on date"), number)
    people = parts("Authors", ";")
    doi = re.fullmatch(r"https?://(?:dx\.)?doi\.org/(10\..+)", cell("Full text"))
    work = Work(
        handle=f"20.500.12854/{FIRST_FROM_CSV + number}",
        title=cell("Title"),
        added=datestamp.strftime("%Y-%m-%dT%H:%M:%SZ"),
        creators=[name for name in people if not _EDITOR_MARK.search(name)],
        editors=[_EDITOR_MARK.sub("", name) for name in people if _EDITOR_MARK.search(name)],
        classes=parts("Subjects", ";"),
        keywords=parts("Keywords"),
        issued=cell("Year of publication"),
        kind=cell("Type").lower() or "book",
        isbns=cell("ISBN").split(),
        language=[_LANGUAGE_CODES.get(name.lower(), name) for name in parts("Language")],
        series=cell("Series title"),
        licence=cell("License").removeprefix("CC ").lower(),
        links=[cell("Full text")],
        publisher=cell("Publisher"),
        doi=doi[1] if doi else "",
        pages=cell("Pages"),
    )
    return _record(work, datestamp)


def _added_on(text: str, number: int) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return datetime(2012, 4, 11, tzinfo=UTC) + timedelta(minutes=number % (24 * 60))


def books_from_page(path: str | Path) -> list[Book]:
    """The records of a saved ListRecords page, their metadata kept byte for byte."""
    page = Path(path).read_bytes()
    return [_from_page(found[1]) for found in re.finditer(rb"<record>(.*?)</record>", page, re.DOTALL)]


def _from_page(record: bytes) -> Book:
    header, _, rest = record.partition(b"</header>")
    first = _reader(header)
    identifier = first("identifier")[0]
    metadata = re.search(rb"<metadata>(.*)</metadata>", rest, re.DOTALL)
    return Book(
        identifier=identifier,
        handle=identifier.rpartition(":")[2],
        datestamp=datetime.fromisoformat(first("datestamp")[0]),
        deleted=b'status="deleted"' in header,
        metadata_xml=metadata[1] if metadata else b"",
        sets=tuple(first("setSpec")),
    )


def _reader(header: bytes) -> Callable[[str], list[str]]:
    text = header.decode()
    return lambda tag: [unescape(value) for value in re.findall(f"<{tag}>([^<]*)</{tag}>", text)]
