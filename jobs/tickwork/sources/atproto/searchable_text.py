"""The records that are searched: posts and profiles, as text."""

from __future__ import annotations

from typing import NamedTuple

import libipld

from tickwork.sources.atproto.corpus import POSTS, PROFILES

COLLECTIONS = frozenset((POSTS, PROFILES))

_MOST_CHARACTERS = 20_000
_MOST_LANGS = 10
_MOST_TAGS = 50


class Text(NamedTuple):
    """What is searched of a record; `langs` and `tags` are separated by blanks."""

    title: str
    text: str
    langs: str
    tags: str
    created: str


def read(collection: str, data: bytes) -> Text | None:
    """The text of a record of COLLECTIONS; None where it has none, or is not what its collection says.

    Fields of another type than the lexicon's count as missing: a repository's owner may write anything.
    """
    try:
        record = libipld.decode_dag_cbor(data)
    except Exception:  # whatever a hostile record makes it raise: one that cannot be read has no text
        return None
    if not isinstance(record, dict) or record.get("$type") != collection:
        return None
    if collection == POSTS:
        title, text = "", _string(record, "text")
    else:
        title, text = _string(record, "displayName"), _string(record, "description")
    if not (title or text):
        return None
    langs, tags = _words(record, "langs", _MOST_LANGS), _words(record, "tags", _MOST_TAGS)
    return Text(title, text, langs, tags, _string(record, "createdAt")[:40])


def _string(record: dict[str, object], name: str) -> str:
    value = record.get(name)
    return value[:_MOST_CHARACTERS].strip() if isinstance(value, str) else ""


def _words(record: dict[str, object], name: str, most: int) -> str:
    values = record.get(name)
    words = [value for value in values if isinstance(value, str)] if isinstance(values, list) else []
    return " ".join("_".join(word.split())[:64] for word in words[:most] if word.strip())
