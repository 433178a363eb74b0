"""Which accounts and which of their records are wanted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import msgspec

from tickwork.contract.outcomes import OperatorError
from tickwork.sources.atproto.repo.identifiers import is_did, is_nsid
from tickwork.sources.atproto.settings import FilterSettings

_MOST_KNOWN = 100_000
"""Collections remembered: their names come from outside."""


class Filter:
    """The filter of the settings. Raises OperatorError for a pattern that is none, naming it."""

    def __init__(self, settings: FilterSettings) -> None:
        _check(settings)
        self.excludes = frozenset(settings.excludes)
        chooses = settings.mode == "filter"
        self.collections = settings.collections if chooses else ()
        self.signals = settings.signals if chooses else ()
        self.wants = _matcher(self.collections) if self.collections else _everything
        """Whether the records of a collection are stored."""
        self.is_signal = _matcher(self.signals)
        """Whether a record of this collection makes its repository count; asked of every record, wanted or not."""

    @property
    def fingerprint(self) -> str:
        """Another one means that other records would be chosen."""
        chosen = msgspec.json.encode([sorted(set(self.collections)), sorted(set(self.signals))])
        return hashlib.sha256(chosen).hexdigest()[:16]


def _everything(collection: str) -> bool:
    return True


def _matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    exact = frozenset(pattern for pattern in patterns if not pattern.endswith(".*"))
    # The dot stays: `app.bsky.feed.*` has nothing to do with `app.bsky.feedback`.
    prefixes = tuple(pattern.removesuffix("*") for pattern in patterns if pattern.endswith(".*"))
    known: dict[str, bool] = {}

    def matches(collection: str) -> bool:
        found = known.get(collection)
        if found is None:
            found = collection in exact or collection.startswith(prefixes)
            if len(known) < _MOST_KNOWN:
                known[collection] = found
        return found

    return matches


def _check(settings: FilterSettings) -> None:
    for pattern in (*settings.collections, *settings.signals):
        # A pattern is a name with another last part, so `x.*` of two parts is one as well.
        if not is_nsid(pattern) and not (pattern.endswith(".*") and is_nsid(f"{pattern[:-1]}a.b")):
            raise OperatorError(
                f"[atproto.filter] {pattern!r} is neither a collection nor a pattern such as app.bsky.*"
            )
    for did in settings.excludes:
        if not is_did(did):
            raise OperatorError(f"[atproto.filter] excludes: {did!r} is not a valid DID")
    if settings.mode == "filter" and not (settings.collections or settings.signals):
        raise OperatorError("[atproto.filter] mode filter needs collections or signals")
    if settings.mode == "full" and (settings.collections or settings.signals):
        raise OperatorError("[atproto.filter] collections and signals have no effect with mode full: set mode filter")
