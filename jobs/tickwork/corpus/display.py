"""How the items of a corpus are shown on pages, and by which other addresses they are found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Shown:
    """A value of a field as it is shown: its text, and the address it leads to, if any."""

    text: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Address:
    """Another address of an item: `PREFIX/VALUE`, where the value is that of a column of the published items."""

    prefix: str
    """The first part of the path, such as `/handle`."""
    value: str
    """Regular expression for the rest of the path, behind a slash."""
    column: str


@dataclass(frozen=True, slots=True)
class Display:
    """How the items of one corpus are shown."""

    shown: Mapping[str, Callable[[str], Shown]] = field(default_factory=dict)
    """How the values of a field are shown, by its name."""
    brief: tuple[str, ...] = ()
    """The fields that stand below the title in a list."""
    addresses: tuple[Address, ...] = ()
