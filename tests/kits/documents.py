"""The documents, and what stands in them to be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.kits.wrappers import ROOT

README = ROOT / "README.md"
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]


def blocks(document: Path, language: str) -> list[str]:
    """The blocks of code in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE)


def commands(document: Path) -> list[list[str]]:
    """The arguments of every `tickwork` that the document has typed, up to where a pipe begins.

    Without those of the source that CONTRIBUTING.md has one make, see test_toy_source.py.
    """
    found = []
    for line in "".join(blocks(document, "sh")).splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0].rpartition("/")[2] == "tickwork" and "toy" not in words:
            found.append(words[1 : words.index("|")] if "|" in words else words[1:])
    return found
