"""Where the generations of a corpus lie, what each one is, and which is current.

generations/doab/current -> 20261122T071500Z-3f2a91  the one pointer, replaced by one rename
generations/doab/20261122T071500Z-3f2a91/            a generation: these files, never changed again
doab.db          items with their full-text index
vectors.npy      (n, dim) float16, in the order of ids.npy
ids.npy          (n,) int64, ascending
index.faiss      their index
similar.db       the nearest of each
meta.json        what it all is, with a sha256 of every file; written last, its own sha256 begins the name's end
generations/doab/building/                           a campaign under way
"""

from __future__ import annotations

import datetime as dt
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tickwork.contract import files, times
from tickwork.contract.outcomes import OperatorError
from tickwork.contract.paths import Paths
from tickwork.generation.meta import META, Meta, read_meta

CURRENT, BUILDING = "current", "building"
CAMPAIGN = "campaign.json"
"""In a generation: it is whole, and was not yet made current when its campaign was killed."""
_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")
_STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class Generation:
    """A published generation: its folder, which may be read as long as it is held open, and its description."""

    folder: Path
    meta: Meta

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def database(self) -> Path:
        """The items and their full-text index."""
        return self.folder / f"{self.meta.corpus}.db"


class Generations:
    """The generations of one corpus."""

    def __init__(self, paths: Paths, corpus: str) -> None:
        self.corpus = corpus
        self.folder = paths.state / "generations" / corpus
        self.building = self.folder / BUILDING

    def names(self) -> list[str]:
        """The names of all generations, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(entry.name for entry in self._entries() if (entry / META).is_file())

    def fresh_name(self, meta: Path) -> str:
        """The name of a generation with the description `meta`; it sorts behind all others, whatever the clock did."""
        at = times.parse(msgspec.json.decode(meta.read_bytes(), type=Meta).built_at)
        if there := self.names():
            newest = dt.datetime.strptime(there[-1].partition("-")[0], _STAMP).replace(tzinfo=dt.UTC)
            at = max(at, newest + dt.timedelta(seconds=1))
        return f"{at.strftime(_STAMP)}-{files.digest(meta)[:6]}"

    def current_name(self) -> str:
        """The name of the current generation, empty without one."""
        try:
            return (self.folder / CURRENT).readlink().name
        except OSError:
            return ""

    def current(self) -> Generation | None:
        """The current generation, None without one. Raises OperatorError when it cannot be read."""
        name = self.current_name()
        return self.open(name) if name else None

    def open(self, name: str) -> Generation:
        """The generation `name`; its description is read, its files are not. Raises OperatorError."""
        folder = self.folder / name
        if not _NAME.fullmatch(name) or folder.is_symlink() or not folder.is_dir():
            there = ", ".join(self.names()) or "none"
            raise OperatorError(f"{self.corpus} has no generation {name!r}; there are: {there}")
        generation = Generation(folder, read_meta(folder))
        if files.digest(folder / META)[:6] != name.rpartition("-")[2]:
            raise OperatorError(
                f"generation {name} of {self.corpus} is damaged: {META} has changed since it was written"
            )
        return generation

    def verify(self, name: str, only: Iterable[str] | None = None) -> Generation:
        """The generation `name`, all of whose files (or `only` some) are as they were written.

        Raises OperatorError naming a file.
        """
        generation = self.open(name)
        for file in generation.meta.sha256 if only is None else only:
            path, expected = generation.folder / file, generation.meta.sha256[file]
            if not path.is_file():
                raise OperatorError(f"generation {name} of {self.corpus} is damaged: {file} is missing")
            if files.digest(path) != expected:
                raise OperatorError(
                    f"generation {name} of {self.corpus} is damaged: {file} has changed since it was written"
                )
        return generation

    def switch(self, name: str) -> None:
        """Make `name` the current generation: from one moment to the next, for whoever opens it after."""
        fresh = self.folder / f".{CURRENT}.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(name)
        fresh.replace(self.folder / CURRENT)
        files.sync(self.folder)

    def unswitched(self) -> list[str]:
        """Generations that are whole, and were not yet made current when their campaign was killed."""
        return [name for name in self.names() if (self.folder / name / CAMPAIGN).exists()]

    def prune(self, keep: int, before: str = "") -> list[str]:
        """Remove all but the current and `keep` - 1 others, the newest and that `before` the current one first of all.

        Who still reads one keeps reading: its files stay until they are closed.
        """
        spared = {self.current_name(), *self.unswitched()}
        others = sorted((name for name in self.names() if name not in spared), key=lambda name: (name == before, name))
        removed = others[: max(0, len(others) - (keep - 1))]
        for name in removed:
            self.remove(self.folder / name)
        return removed

    def remove(self, folder: Path) -> None:
        """Remove a folder so that a part of it is never taken for a generation: its description goes first."""
        if folder.is_dir():
            (folder / META).unlink(missing_ok=True)
            files.sync(folder)
            shutil.rmtree(folder)

    def sweep(self) -> None:
        """Remove what a removal that was killed has left."""
        if not self.folder.is_dir():
            return
        for entry in self._entries():
            if not (entry / META).exists():
                shutil.rmtree(entry)

    def _entries(self) -> list[Path]:
        """The folders that are, or were, generations; others are not ours."""
        return [
            entry
            for entry in self.folder.iterdir()
            if _NAME.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink()
        ]
