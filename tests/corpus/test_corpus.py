"""A source's rows as documents: what a book of DOAB is found by, and when its text is another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kits.vectors import DOAB, change, delete, documents, make_state
from tickwork.contract.outcomes import OperatorError
from tickwork.contract.paths import Paths
from tickwork.contract.settings import Settings
from tickwork.corpus.display import Shown
from tickwork.corpus.document import Document, embedded, text_hash
from tickwork.deployment import Deployment
from tickwork.sources.doab import SOURCE
from tickwork.sources.doab.display import DISPLAY

BOOK = {
    "title": "Bees of Sicily",
    "description": "A survey.\n\nSecond paragraph.",
    "creators": ["Rossi, Ada"],
    "editors": ["Müller, Eva"],
    "contributors": ["Ng, Li"],
    "subjects": ["beekeeping", "Sicily"],
    "publisher": "Ledizioni",
    "year": 2019,
    "language": "ita",
    "type": "book",
    "licence": "https://creativecommons.org/licenses/by/4.0/",
    "isbns": ["9788867050001"],
    "doi": "10.5555/bees",
}
EMPTY = {name: [] if isinstance(value, list) else "" for name, value in BOOK.items() if name != "year"}


def only(state: Path) -> Document:
    with documents(state) as db:
        (found,) = DOAB.after(db, 0, 10)
    return found


def all_ids(state: Path) -> list[int]:
    with documents(state) as db:
        return [document.id for document in DOAB.after(db, 0, 10_000)]


def hash_of(state: Path) -> bytes:
    return text_hash(embedded(only(state)))


def test_a_book_is_a_document_with_all_that_it_is_found_by(tmp_path: Path) -> None:
    change(tmp_path, 7, **BOOK)
    found = only(tmp_path)
    assert (found.id, found.identifier) == (7, "oai:directory.doabooks.org:20.500.12854/7")
    assert (found.title, found.text) == (BOOK["title"], BOOK["description"])
    assert found.url == "https://directory.doabooks.org/handle/20.500.12854/7"
    assert found.words.split("\n") == [
        *("beekeeping", "Sicily", "Rossi, Ada", "Müller, Eva", "Ng, Li"),
        *("Ledizioni", "9788867050001", "10.5555/bees", "20.500.12854/7"),
    ]
    assert found.fields == {
        "creators": ["Rossi, Ada", "Müller, Eva", "Ng, Li"],
        "subjects": ["beekeeping", "Sicily"],
        **{name: BOOK[name] for name in ("publisher", "year", "language", "type", "licence", "isbns", "doi")},
        "handle": "20.500.12854/7",
    }
    assert found.fields.keys() == {field.name for field in DOAB.fields}


@pytest.mark.parametrize(
    ("handle", "url"),
    [
        ("20.500.12854/7.2", "https://directory.doabooks.org/handle/20.500.12854/7.2"),
        ("20.500.12854/7 a?b#c", "https://directory.doabooks.org/handle/20.500.12854/7%20a%3Fb%23c"),
        ("10419/12 a?b#c", "https://hdl.handle.net/10419/12%20a%3Fb%23c"),
        ("20.500.128541/7", "https://hdl.handle.net/20.500.128541/7"),
    ],
)
def test_a_handle_leads_to_the_repository_that_gave_it(tmp_path: Path, handle: str, url: str) -> None:
    change(tmp_path, 1, **EMPTY, year=None, handle=handle)
    assert only(tmp_path).url == url
    assert DISPLAY.shown["handle"](handle) == Shown(handle, url)


def test_a_book_that_says_nothing_is_a_document_without_text(tmp_path: Path) -> None:
    change(tmp_path, 1, **EMPTY, year=None, handle=None)
    found = only(tmp_path)
    assert embedded(found) == ""
    assert found.url == ""
    assert found.fields["handle"] is None


def test_deleted_records_are_no_documents(tmp_path: Path) -> None:
    make_state(tmp_path, 5)
    delete(tmp_path, 2, 4)
    assert all_ids(tmp_path) == [1, 3, 5]
    with documents(tmp_path) as db:
        assert [document.id for document in DOAB.rows(db, [1, 2, 3])] == [1, 3]


@pytest.mark.parametrize(
    "column", ["title", "description", "creators", "editors", "contributors", "subjects", "publisher", "isbns", "doi"]
)
def test_another_text_has_another_hash(tmp_path: Path, column: str) -> None:
    change(tmp_path, 1, **BOOK)
    before = hash_of(tmp_path)
    change(tmp_path, 1, **{column: ["other"] if isinstance(BOOK[column], list) else "other"})
    assert hash_of(tmp_path) != before


@pytest.mark.parametrize(
    "columns", [{"year": 1900}, {"language": "eng"}, {"licence": "none"}, {"type": "chapter"}, {"pages": "7"}]
)
def test_what_is_no_text_leaves_the_hash_as_it_is(tmp_path: Path, columns: dict[str, object]) -> None:
    change(tmp_path, 1, **BOOK)
    before = hash_of(tmp_path)
    change(tmp_path, 1, **columns)
    assert hash_of(tmp_path) == before


def test_the_embedded_text_has_the_title_first_and_no_empty_parts() -> None:
    whole = Document(id=1, identifier="x", title=" Title ", text="Body\n", words="a\nb")
    assert embedded(whole) == "Title\n\nBody\n\na\nb"
    assert embedded(Document(id=1, identifier="x", title=" ", text="Body", words="")) == "Body"


def test_documents_are_read_in_parts_in_the_order_of_their_ids(tmp_path: Path) -> None:
    make_state(tmp_path, 1203)
    with documents(tmp_path) as db:
        first = DOAB.after(db, 0, 1000)
        rest = DOAB.after(db, first[-1].id, 1000)
        several = list(DOAB.rows(db, list(range(1, 1204))))
    assert [document.id for document in first + rest] == list(range(1, 1204))
    assert [document.id for document in several] == list(range(1, 1204)), "more than one query may ask for"


def test_an_unknown_corpus_is_told_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="no corpus 'daob'; the corpora are: doab"):
        Deployment(Settings(), Paths.under(tmp_path), {"doab": SOURCE}).corpus("daob")
