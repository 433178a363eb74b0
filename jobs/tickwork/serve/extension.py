"""What a source may add to the pages of its items: `EXTENSION` in a module `pages` beside its `corpus`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec


@dataclass(frozen=True, slots=True)
class Shown:
    """A value of a field as it is shown: its text, and the address it leads to, if any."""

    text: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Extension:
    """What one source adds."""

    shown: Mapping[str, Callable[[str], Shown]] = field(default_factory=dict)
    """How the values of a field are shown, by its name."""
    brief: tuple[str, ...] = ()
    """The fields that stand below the title in a list."""
    routes: Mapping[str, str] = field(default_factory=dict)
    """Pattern of a path to the column whose value its group `value` is: the address of an item by another name."""


def extension_of(source: str) -> Extension:
    """What `source` adds; nothing when it has no such module."""
    name = f"tickwork.{source}.pages"
    extension: Extension = import_module(name).EXTENSION if find_spec(name) else Extension()
    return extension
