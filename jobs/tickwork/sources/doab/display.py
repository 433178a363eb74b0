"""Books on the pages of the search service."""

from __future__ import annotations

from urllib.parse import quote

from tickwork.corpus.display import Address, Display, Shown
from tickwork.sources.doab.corpus import address_of


def _doi(doi: str) -> Shown:
    return Shown(doi, f"https://doi.org/{quote(doi, safe='/')}")


def _handle(handle: str) -> Shown:
    return Shown(handle, address_of(handle))


def _licence(licence: str) -> Shown:
    return Shown(licence.removeprefix("https://").removeprefix("http://"), licence if "://" in licence else "")


DISPLAY = Display(
    brief=("creators", "publisher", "year"),
    shown={"doi": _doi, "handle": _handle, "licence": _licence},
    addresses=(Address("/handle", r"[0-9.]+/[0-9a-zA-Z.~-]+", "handle"),),
)
