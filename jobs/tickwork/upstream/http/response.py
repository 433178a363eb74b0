"""A complete answer; the ways in which there is none are in `errors`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_EXCERPT_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class Response:
    """A complete answer: `content` is the decoded body, empty when it was written to `path`.

    `url` is the last one after redirects, `headers` take names in any case, `elapsed` is in seconds and without the
    wait for the slot, `bytes` is the body's size as sent.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    content: bytes
    path: Path | None
    elapsed: float
    bytes: int


def readable(excerpt: bytes) -> str:
    """An excerpt of foreign text that can stand in a log line."""
    text = excerpt[: 4 * _EXCERPT_CHARACTERS].decode("utf-8", errors="replace")
    text = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return text[:_EXCERPT_CHARACTERS] or "(no text)"


def root_cause(error: BaseException) -> str:
    """What went wrong at the bottom of the library's nested exceptions, whose own messages show the whole URL."""
    while True:
        inner = [part for part in (getattr(error, "reason", None), *error.args) if isinstance(part, BaseException)]
        if not inner:
            return f"{type(error).__name__}: {readable(str(error).encode())}"
        error = inner[0]
