"""One item as it is searched and shown, and the text of it that is embedded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from tickwork.corpus.fields import Value


@dataclass(frozen=True, slots=True)
class Document:
    """One item as it is searched and shown."""

    id: int
    identifier: str
    title: str
    text: str
    """The body: searched, embedded, and shown in part."""
    words: str = ""
    """What else it is found by (people, numbers, subjects), not shown."""
    url: str = ""
    fields: Mapping[str, Value] = field(default_factory=dict)


def embedded(document: Document) -> str:
    """The text that is embedded: title, blank line, body, blank line, what else it is found by."""
    return "\n\n".join(part for part in (document.title.strip(), document.text.strip(), document.words.strip()) if part)


def text_hash(text: str) -> bytes:
    """16 bytes by which an embedded text is known again."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
