"""Books on the pages of the search service."""

from __future__ import annotations

from urllib.parse import quote

from tickwork.doab.corpus import address_of
from tickwork.serve.extension import Extension, Shown


def _doi(doi: str) -> Shown:
    return Shown(doi, f"https://doi.org/{quote(doi, safe='/')}")


def _handle(handle: str) -> Shown:
    return Shown(handle, address_of(handle))


def _licence(licence: str) -> Shown:
    return Shown(licence.removeprefix("https://").removeprefix("http://"), licence if "://" in licence else "")


EXTENSION = Extension(
    brief=("creators", "publisher", "year"),
    shown={"doi": _doi, "handle": _handle, "licence": _licence},
    routes={r"^/handle/(?P<value>[0-9.]+/[0-9a-zA-Z.~-]+)$": "handle"},
)
