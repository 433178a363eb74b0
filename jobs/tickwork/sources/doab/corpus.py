"""DOAB's books as a corpus."""

from __future__ import annotations

import json
import sqlite3
from urllib.parse import quote

from tickwork.corpus.corpus import Corpus
from tickwork.corpus.document import Document
from tickwork.corpus.fields import Field

OWN_HANDLES = "20.500.12854/"
"""What the handles of DOAB begin with."""


def address_of(handle: str) -> str:
    """Where a handle leads: those of DOAB to its own page, those of other repositories by way of the handle system."""
    at = "https://directory.doabooks.org/handle/" if handle.startswith(OWN_HANDLES) else "https://hdl.handle.net/"
    return at + quote(handle, safe="/")


def _document(row: sqlite3.Row) -> Document:
    lists = {name: json.loads(row[name]) for name in ("creators", "editors", "contributors", "subjects", "isbns")}
    people = [*lists["creators"], *lists["editors"], *lists["contributors"]]
    words = (*lists["subjects"], *people, row["publisher"], *lists["isbns"], row["doi"], row["handle"] or "")
    return Document(
        id=row["id"],
        identifier=row["identifier"],
        title=row["title"],
        text=row["description"],
        words="\n".join(word for word in words if word),
        url=address_of(row["handle"]) if row["handle"] else "",
        fields={
            "creators": people,
            "subjects": lists["subjects"],
            "publisher": row["publisher"],
            "year": row["year"],
            "language": row["language"],
            "type": row["type"],
            "licence": row["licence"],
            "isbns": lists["isbns"],
            "doi": row["doi"],
            "handle": row["handle"],
        },
    )


CORPUS = Corpus(
    name="doab",
    database="doab",
    table="records",
    select=(
        "SELECT id, identifier, handle, title, description, creators, editors, contributors, subjects, publisher,"
        " year, language, type, licence, isbns, doi FROM records WHERE NOT deleted"
    ),
    document=_document,
    fields=(
        Field("creators", "list"),
        Field("subjects", "list", facet=True),
        Field("publisher", facet=True),
        Field("year", "number", facet=True),
        Field("language", facet=True),
        Field("type", facet=True),
        Field("licence", facet=True),
        Field("isbns", "list"),
        Field("doi"),
        Field("handle"),
    ),
    display="tickwork.sources.doab.display:DISPLAY",
)
