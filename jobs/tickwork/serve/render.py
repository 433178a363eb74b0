"""Our pages: templates without scripts, every value escaped."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from tickwork.serve.open_generation import MARKS

_MARKED = re.compile(f"{MARKS[0]}([^{MARKS[0]}{MARKS[1]}]*){MARKS[1]}")
_UNPRINTABLE = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n\r"}
"""Characters that no HTML may have."""

_NO_MARKS = dict.fromkeys(map(ord, MARKS))

STYLE = files("tickwork.serve").joinpath("assets/style.css").read_text(encoding="utf-8")
STYLE_PATH = f"/assets/style-{hashlib.sha256(STYLE.encode()).hexdigest()[:12]}.css"
"""Another name for other content, so that it may be kept for ever."""


def render(template: str, **values: object) -> str:
    """The page that `template` makes of `values`."""
    return _environment.get_template(template).render(style=STYLE_PATH, **values)


def plain(snippet: str) -> str:
    """A snippet without its marks."""
    return snippet.translate(_NO_MARKS)


def _marked(snippet: str) -> Markup:
    """A snippet, escaped, the words found in <mark>."""
    marked = _MARKED.sub(r"<mark>\1</mark>", str(escape(snippet)))
    return Markup(marked.translate(_NO_MARKS))  # noqa: S704 - escaped just here


def shorten(text: str, most: int) -> str:
    """`text`, or the beginning of it that has `most` characters."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def safe_url(url: str) -> str:
    """`url` if it may stand in a link: an address of the web, nothing that runs."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return url if parts.scheme in ("http", "https") and parts.hostname else ""


def _paragraphs(text: str) -> list[str]:
    return [part for part in (" ".join(part.split()) for part in re.split(r"\n\s*\n", text)) if part]


def _printable(value: object) -> object:
    return value.translate(_UNPRINTABLE) if isinstance(value, str) else value


_environment = Environment(
    loader=PackageLoader("tickwork.serve"),
    autoescape=True,
    finalize=_printable,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {"marked": _marked, "safe_url": safe_url, "paragraphs": _paragraphs}
