"""Everything that the description of a generation says is true; an index that got worse is trained anew."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import sqlite3
from importlib.metadata import version
from pathlib import Path

import faiss
import numpy as np
import pytest

from tests.kits.publish import DIM, DRAINED, GENERATION, MODEL, Shelf, agrees, index_ids, some, unit
from tickwork.generation.index import read_index
from tickwork.generation.matrix import Matrix
from tickwork.publish import index as index_stage


def test_every_field_of_the_description_is_true(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, factory="IVF4,SQfp16", nprobe=3)
    shelf.add([*some(60), None])
    began = dt.datetime.now(dt.UTC).replace(microsecond=0)
    generation = shelf.publish()
    ended = dt.datetime.now(dt.UTC)
    meta = json.loads((generation.folder / "meta.json").read_text())
    sha256 = {
        name: hashlib.sha256((generation.folder / name).read_bytes()).hexdigest()
        for name in GENERATION
        if name != "meta.json"
    }
    with shelf.books() as books, shelf.store() as store:
        newest = books.execute("SELECT max(seq) FROM records_changes").fetchone()[0]
        revision = store.revision
    index = meta.pop("index")
    assert began <= dt.datetime.fromisoformat(meta["built_at"]) <= ended
    assert generation.name.startswith(re.sub(r"[-:]", "", meta.pop("built_at")) + "-")
    assert generation.name.endswith(hashlib.sha256((generation.folder / "meta.json").read_bytes()).hexdigest()[:6])
    assert meta == {
        "format": 1,
        "corpus": "doab",
        "total": 61,
        "vectors": 60,
        "dim": DIM,
        "dtype": str(Matrix.load(generation.folder).vectors.dtype),
        "model": {
            "name": MODEL.name,
            "revision": "",
            "fingerprint": MODEL.fingerprint,
            "dim": DIM,
            "max_tokens": 256,
            "prefix": "",
            "query_prefix": "",
        },
        "fingerprint": MODEL.fingerprint,
        "top_k": 4,
        "similarity": "exact",
        "id_source": "records.id",
        "watermark": {"documents": newest, "vectors": revision},
        "libraries": {
            "sqlite": sqlite3.sqlite_version,
            "faiss-cpu": faiss.__version__,
            **{name: version(name) for name in ("numpy", "torch", "transformers")},
        },
        "sha256": sha256,
    }
    assert {name: index[name] for name in ("recall", "recall_trained")} == dict.fromkeys(
        ("recall", "recall_trained"), pytest.approx(recall_by_hand(shelf), abs=1e-9)
    )
    assert index == index | {
        "index_type": "IndexIVFScalarQuantizer",
        "factory": "IVF4,SQfp16",
        "nlist": 4,
        "nprobe": 3,
        "metric": "inner product",
        "trained_on": 60,
        "probes": 60,
        "acceleration": "cpu",
    }
    index_file = faiss.read_index(str(generation.folder / "index.faiss"))  # kept alive for the view below
    made = faiss.extract_index_ivf(index_file)
    assert (made.nlist, made.metric_type, made.d) == (4, faiss.METRIC_INNER_PRODUCT, DIM)


def recall_by_hand(shelf: Shelf) -> float:
    """Of the ten nearest of each vector, the share that the index finds."""
    generation = shelf.current()
    matrix, index = Matrix.load(generation.folder), read_index(generation.folder, generation.meta.index)
    vectors = matrix.vectors.astype(np.float64)
    hits = 0
    for place, identifier in enumerate(matrix.ids.tolist()):
        scores = dict(zip(matrix.ids.tolist(), (vectors @ vectors[place]).tolist(), strict=True))
        del scores[identifier]
        nearest = set(sorted(scores, key=scores.__getitem__, reverse=True)[:10])
        hits += len(nearest & set(index.search(vectors[place : place + 1].astype(np.float32), 11)[1][0].tolist()))
    return hits / (10 * len(vectors))


def test_a_flat_index_finds_everything_also_among_equals(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.add([unit(np.ones(DIM))] * 50)
    assert shelf.publish().meta.index.recall == 1.0


def test_more_lists_are_not_looked_into_than_there_are(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, factory="IVF4,Flat", nprobe=32)
    shelf.add(some(40))
    assert shelf.publish().meta.index.nprobe == 4


def towards(axis: int, count: int, seed: int) -> list[np.ndarray]:
    """Vectors close to one axis."""
    random = np.random.default_rng(seed)
    return list(unit(np.eye(DIM)[axis] + 0.1 * random.standard_normal((count, DIM))))


def test_an_index_that_finds_less_than_when_it_was_trained_is_trained_anew_and_says_so(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, factory="IVF8,Flat", nprobe=1)
    shelf.add([vector for axis in range(8) for vector in towards(axis, 15, axis)])  # one list for each corner
    trained = shelf.publish().meta.index
    shelf.add(some(60, 5))  # between all corners
    said = shelf.run("publish", "doab")
    assert said.code == DRAINED
    found = re.search(r"warning: the index finds ([\d.]+) of the nearest, ([\d.]+) when trained", said.err)
    assert found
    assert float(found[1]) < float(found[2]) - index_stage.MAX_LOST_RECALL
    assert float(found[2]) == pytest.approx(trained.recall, abs=0.001)
    fresh = shelf.current()
    assert fresh.meta.index.trained_on == 180
    assert fresh.meta.index.recall == fresh.meta.index.recall_trained
    agrees(shelf, fresh)


def test_an_index_that_finds_as_much_as_before_is_only_changed(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, factory="IVF8,Flat", nprobe=8)
    shelf.add(some(100))
    before = shelf.publish().meta.index
    shelf.add(some(10, 5))
    said = shelf.run("publish", "doab")
    assert "warning" not in said.err
    after = shelf.current().meta.index
    assert (after.trained_on, after.recall_trained) == (100, before.recall_trained)


@pytest.mark.parametrize(("before", "after"), [(40, 81), (40, 19)])
def test_an_index_is_trained_anew_when_there_are_twice_as_many_or_half(tmp_path: Path, before: int, after: int) -> None:
    shelf = Shelf(tmp_path, factory="IVF4,Flat", nprobe=4)
    ids = shelf.add(some(before))
    shelf.publish()
    if after > before:
        shelf.add(some(after - before, 5))
    else:
        shelf.delete(ids[after:])
    fresh = shelf.publish()
    assert fresh.meta.index.trained_on == after
    assert index_ids(fresh) == sorted(shelf.given)


@pytest.mark.parametrize("factory", ["IVF4,PQ4x4fs", "IVF4,RaBitQ", "HNSW8", "SQ8", "IVF4,Flat,Refine(Flat)"])
def test_an_index_that_cannot_be_changed_without_harm_is_made_anew(tmp_path: Path, factory: str) -> None:
    shelf = Shelf(tmp_path, factory=factory, nprobe=4)
    shelf.add(towards(0, 60, 1))
    shelf.publish()
    shelf.delete([3, 4])
    shelf.change({5: towards(0, 1, 9)[0]})
    fresh = shelf.publish()
    assert (fresh.meta.index.factory, fresh.meta.index.trained_on) == (factory, 58)
    index = read_index(fresh.folder, fresh.meta.index)
    assert index.ntotal == 58
    found = index.search(np.stack([shelf.given[5]]).astype(np.float32), 58)[1]
    assert not {3, 4} & set(found[0].tolist())
