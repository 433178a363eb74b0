"""The last stage before the switch: what was built is whole and agrees with itself; its description is written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import numpy as np

from tickwork.contract import database, files, times
from tickwork.contract.outcomes import Halt
from tickwork.contract.units import Unit
from tickwork.generation.index import read_index
from tickwork.generation.matrix import Matrix
from tickwork.generation.meta import FORMAT, IDS, INDEX, SIMILAR, VECTORS, IndexMeta, Meta, Watermark, write_meta
from tickwork.generation.model_info import ModelInfo
from tickwork.publish.campaign_context import SNAPSHOT, CampaignContext
from tickwork.publish.gather_vectors import ORIGIN, Origin
from tickwork.publish.index import DESCRIPTION, unfound
from tickwork.store import changes

LIBRARIES = ("faiss-cpu", "faiss-gpu", "numpy", "torch", "transformers")


def verify(context: CampaignContext) -> Iterator[Unit]:
    """Compare the files with each other and write meta.json; one unit. Raises Halt naming what does not agree."""
    matrix = Matrix.load(context.folder)
    base = context.base
    if context.request.kind == "similar" and base:
        described = base.meta.index
    else:
        described = msgspec.json.decode((context.folder / DESCRIPTION).read_bytes(), type=IndexMeta)
    total, problems = _items(context, matrix)
    problems += _index(context.folder, described, matrix)
    problems += _similar(context, matrix)
    if problems:
        raise Halt(
            f"what was built of {context.corpus.name} is inconsistent and is not published:"
            f" {'; '.join(problems)}. Remove {context.folder}, then re-arm"
        )
    if context.request.kind == "publish" or base is None:
        model, watermark = _origin(context.folder, context.corpus.table)
    else:
        model, watermark = base.meta.model, base.meta.watermark
    names = (f"{context.corpus.name}.db", IDS, VECTORS, INDEX, SIMILAR)
    meta = Meta(
        format=FORMAT,
        corpus=context.corpus.name,
        built_at=times.show(times.now()),
        total=total,
        vectors=len(matrix.ids),
        dim=int(matrix.vectors.shape[1]),
        dtype="float16",
        model=model,
        fingerprint=model.fingerprint if model else "",
        index=described,
        top_k=context.request.top_k,
        similarity="exact",
        id_source=f"{context.corpus.table}.id",
        watermark=watermark,
        libraries=_libraries(),
        sha256={name: files.digest(context.folder / name) for name in names},
    )
    write_meta(context.folder, meta)
    yield Unit(items=0, note="checked")


def _origin(folder: Path, table: str) -> tuple[ModelInfo | None, Watermark]:
    """The model of a campaign's vectors, and up to where the campaign's sources reach."""
    origin = msgspec.json.decode((folder / ORIGIN).read_bytes(), type=Origin)
    with closing(database.connect(folder / SNAPSHOT, read_only=True)) as source:
        return origin.model, Watermark(documents=changes.newest(source, table), vectors=origin.revision)


def _items(context: CampaignContext, matrix: Matrix) -> tuple[int, list[str]]:
    """The number of items, and what is wrong with them."""
    problems = []
    with closing(database.connect(context.folder / f"{context.corpus.name}.db", read_only=True)) as items:
        ids = np.array([row[0] for row in items.execute("SELECT id FROM items ORDER BY id")], np.int64)
        if strangers := len(np.setdiff1d(matrix.ids, ids, assume_unique=True)):
            problems.append(f"vectors without an item: {strangers}")
    snapshot = context.folder / SNAPSHOT
    if snapshot.exists():
        with closing(database.connect(snapshot, read_only=True)) as source:
            live = source.execute(f"SELECT count(*) FROM ({context.corpus.select})").fetchone()[0]  # noqa: S608
        if live != len(ids):
            problems.append(f"{len(ids)} items for {live} documents")
    return len(ids), problems + _full_text(context.folder / f"{context.corpus.name}.db")


def _full_text(path: Path) -> list[str]:
    """What is wrong with the full-text index. FTS5 answers this only in a file it may write to."""
    with closing(sqlite3.connect(path, isolation_level=None)) as items:
        try:
            items.execute("INSERT INTO items_fts (items_fts, rank) VALUES ('integrity-check', 1)")
        except sqlite3.DatabaseError as error:
            return [f"the full-text index does not match the items ({error})"]
    return []


def _index(folder: Path, described: IndexMeta, matrix: Matrix) -> list[str]:
    index = read_index(folder, described)
    if index.ntotal != len(matrix.ids):
        return [f"the index has {index.ntotal} of {len(matrix.ids)} vectors"]
    problem = unfound(index, matrix)
    return [problem] if problem else []


def _similar(context: CampaignContext, matrix: Matrix) -> list[str]:
    problems = []
    with closing(database.connect(context.folder / SIMILAR, read_only=True)) as similar:
        sources = similar.execute("SELECT count(*) FROM lists").fetchone()[0]
        if sources != len(matrix.ids):
            problems.append(f"{sources} lists of similar items for {len(matrix.ids)} vectors")
        expected = len(matrix.ids) * min(context.request.top_k, max(0, len(matrix.ids) - 1))
        entries = similar.execute("SELECT count(*) FROM similar").fetchone()[0]
        if entries != expected:
            problems.append(f"{entries} similar items instead of {expected}")
    return problems


def _libraries() -> dict[str, str]:
    found = {"sqlite": sqlite3.sqlite_version}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
