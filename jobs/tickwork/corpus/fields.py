"""The fields of the published items, to filter and to count by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "number", "list"]
Value = str | int | float | list[str] | None


@dataclass(frozen=True, slots=True)
class Field:
    """A column of the published items, to filter and to count by; a `list` holds several texts."""

    name: str
    kind: Kind = "text"
    facet: bool = False
    """Whether its values are few enough to be offered with their counts."""
