"""Where the generations of a corpus lie, what each one is, and which is current.

generations/doab/current -> 20261122T071500Z-3f2a    the one pointer, replaced by one rename
generations/doab/20261122T071500Z-3f2a/              a generation: these files, never changed again
doab.db          items with their full-text index
vectors.npy      (n, dim) float16, in the order of ids.npy
ids.npy          (n,) int64, ascending
index.faiss      their index
similar.db       the nearest of each
meta.json        what it all is, with a sha256 of every file; written last
generations/doab/building/                           a campaign under way
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tickwork.contract.layout import Layout
from tickwork.contract.outcomes import OperatorError
from tickwork.publish import files
from tickwork.vectors.info import ModelInfo

META, IDS, VECTORS, INDEX, SIMILAR = "meta.json", "ids.npy", "vectors.npy", "index.faiss", "similar.db"
CURRENT, BUILDING = "current", "building"
FORMAT = 1


class IndexMeta(msgspec.Struct, kw_only=True, frozen=True):
    """How an index was made; `recall` is that at 10 on `probes` of its own vectors, after the last training."""

    index_type: str
    factory: str
    nlist: int
    nprobe: int
    metric: str
    trained_on: int
    recall: float
    recall_trained: float
    probes: int
    acceleration: str


class Watermark(msgspec.Struct, kw_only=True, frozen=True):
    """Up to which change of the documents, and of the vectors, a generation reaches."""

    documents: int
    vectors: int


class Meta(msgspec.Struct, kw_only=True, frozen=True):
    """What a generation is."""

    format: int
    corpus: str
    built_at: str
    """UTC, like 2026-11-22T07:15:00Z."""
    total: int
    """Items that can be found by words."""
    vectors: int
    """Items that can be found by meaning."""
    dim: int
    dtype: str
    model: ModelInfo | None
    """None when nothing is embedded yet."""
    fingerprint: str
    index: IndexMeta
    top_k: int
    similarity: str
    id_source: str
    watermark: Watermark
    libraries: dict[str, str]
    sha256: dict[str, str]


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

    def __init__(self, layout: Layout, corpus: str) -> None:
        self.corpus = corpus
        self.folder = layout.state / "generations" / corpus
        self.building = self.folder / BUILDING

    def names(self) -> list[str]:
        """The names of all generations, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(
            entry.name for entry in self.folder.iterdir() if (entry / META).is_file() and not self._is_ours(entry)
        )

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
        if "/" in name or name.startswith(".") or not folder.is_dir():
            there = ", ".join(self.names()) or "none"
            raise OperatorError(f"{self.corpus} has no generation {name!r}; there are: {there}")
        return Generation(folder, read_meta(folder))

    def verify(self, name: str) -> Generation:
        """The generation `name`, all of whose files are as they were written. Raises OperatorError naming a file."""
        generation = self.open(name)
        for file, expected in generation.meta.sha256.items():
            path = generation.folder / file
            if not path.is_file():
                raise OperatorError(f"generation {name} of {self.corpus} is damaged: {file} is missing")
            if files.digest(path) != expected:
                raise OperatorError(f"generation {name} of {self.corpus} is damaged: {file} is not what was written")
        return generation

    def switch(self, name: str) -> None:
        """Make `name` the current generation: from one moment to the next, for whoever opens it after."""
        fresh = self.folder / f".{CURRENT}.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(name)
        fresh.replace(self.folder / CURRENT)
        files.sync(self.folder)

    def prune(self, keep: int) -> list[str]:
        """Remove all but the current and the `keep` - 1 newest others; gives the names of those removed.

        Who still reads one keeps reading: its files stay until they are closed.
        """
        current = self.current_name()
        others = [name for name in self.names() if name != current]
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
        for entry in self.folder.iterdir():
            if entry.is_dir() and not self._is_ours(entry) and not (entry / META).exists():
                shutil.rmtree(entry)

    def _is_ours(self, entry: Path) -> bool:
        return entry.is_symlink() or entry.name in (CURRENT, BUILDING)


def read_meta(folder: Path) -> Meta:
    """The description in a generation's folder. Raises OperatorError when there is none, or one of another format."""
    path = folder / META
    try:
        meta = msgspec.json.decode(path.read_bytes(), type=Meta)
    except (OSError, msgspec.DecodeError) as error:
        raise OperatorError(f"cannot read {path}: {error}; roll back to another generation, or publish anew") from error
    if meta.format != FORMAT:
        raise OperatorError(f"{path} is of format {meta.format}, this tickwork reads {FORMAT}: publish anew")
    return meta


def write_meta(folder: Path, meta: Meta) -> None:
    """Write the description of a generation, the last of its files."""
    with files.whole(folder / META) as path:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(meta), indent=2))
