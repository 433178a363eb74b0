"""Posts and profiles as a corpus."""

from __future__ import annotations

import sqlite3

from tickwork.corpus.corpus import Corpus
from tickwork.corpus.document import Document
from tickwork.corpus.fields import Field

POSTS = "app.bsky.feed.post"
PROFILES = "app.bsky.actor.profile"
"""The collections whose records are searched."""


def _document(row: sqlite3.Row) -> Document:
    uri = f"at://{row['did']}/{row['collection']}/{row['rkey']}"
    is_post = row["collection"] == POSTS
    page = f"https://bsky.app/profile/{row['did']}"
    return Document(
        id=row["id"],
        identifier=uri,
        title=row["title"] or (row["text"].partition("\n")[0][:80] if is_post else ""),
        text=row["text"],
        words="\n".join(word for word in (row["handle"] or "", *row["tags"].split()) if word),
        url=f"{page}/post/{row['rkey']}" if is_post else page,
        fields={
            "kind": "post" if is_post else "profile",
            "langs": row["langs"].split(),
            "tags": row["tags"].split(),
            "handle": row["handle"] or "",
            "did": row["did"],
            "created": row["created"],
        },
    )


CORPUS = Corpus(
    name="atproto",
    database="atproto",
    table="texts",
    select=(
        "SELECT id, did, collection, rkey, title, text, langs, tags, created, (SELECT handle FROM repos"
        " WHERE repos.did = texts.did) AS handle FROM texts WHERE 1"
    ),
    document=_document,
    fields=(
        Field("kind", facet=True),
        Field("langs", "list", facet=True),
        Field("tags", "list", facet=True),
        Field("handle"),
        Field("did"),
        Field("created"),
    ),
)
