"""Vectors like those of real texts, and the peers' indexes over them; see bench/index.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

DIM = 384
NEAREST = 10
SEED = 1


def draw(rng: np.random.Generator, count: int, there: np.ndarray | None) -> np.ndarray:
    """`count` unit vectors in float16, in no order."""
    if there is not None:
        chosen = rng.permutation(len(there))[:count]
        more = rng.integers(len(there), size=count - len(chosen))
        noise = rng.standard_normal((len(more), there.shape[1]), np.float32) * 0.3 / math.sqrt(there.shape[1])
        return _unit(np.concatenate([there[chosen].astype(np.float32), there[more].astype(np.float32) + noise]))
    weights = np.arange(1, DIM + 1, dtype=np.float32) ** -0.4
    basis = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0].astype(np.float32)

    def directions(number: int) -> np.ndarray:
        drawn = rng.standard_normal((number, DIM), np.float32) * weights
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    broad, narrow = directions(50), directions(max(1, count // 60))
    narrow += 0.7 * broad[rng.integers(len(broad), size=len(narrow))]
    made = directions(count)
    made += narrow[rng.integers(len(narrow), size=count)]
    similar = rng.permutation(count)
    alike, same = similar[: count // 20], similar[count // 20 : count // 20 + count // 100]
    made[alike] = made[alike[np.arange(len(alike)) // 20 * 20]] + 0.1 * directions(len(alike))
    made[same] = made[similar[-1 - np.arange(len(same))]]
    return _unit((made + 0.3 * weights / np.linalg.norm(weights)) @ basis)


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def exact_scores(vectors: np.ndarray, queries: np.ndarray, at_once: int = 100) -> Iterator[np.ndarray]:
    """The scores of each query with all vectors, (n,), plainly in float64."""
    for start in range(0, len(queries), at_once):
        some = queries[start : start + at_once].astype(np.float64)
        blocks = [some @ vectors[at : at + 20_000].astype(np.float64).T for at in range(0, len(vectors), 20_000)]
        yield from np.concatenate(blocks, axis=1)


# Indexes: how each is made, searched and weighed.


@dataclass
class Made:
    """An index that was made: search for one float32 vector gives row numbers; its size in bytes once written."""

    search: Callable[[np.ndarray], np.ndarray]
    size: Callable[[], int]


def make_hnswlib(vectors: np.ndarray, folder: Path, threads: int) -> Made:
    import hnswlib

    made = hnswlib.Index(space="ip", dim=vectors.shape[1])
    made.init_index(max_elements=len(vectors), M=16, ef_construction=200, random_seed=SEED)
    made.add_items(vectors.astype(np.float32), np.arange(len(vectors)), num_threads=threads)
    made.set_ef(64)
    return Made(
        lambda query: made.knn_query(query, NEAREST, num_threads=1)[0][0],
        lambda: _written(folder / "hnswlib", lambda path: made.save_index(path)),
    )


def make_usearch(vectors: np.ndarray, folder: Path, threads: int) -> Made:
    from usearch.index import Index

    made = Index(ndim=vectors.shape[1], metric="ip", dtype="bf16", connectivity=16, expansion_search=64)
    made.add(np.arange(len(vectors)), vectors.astype(np.float32), threads=threads)
    return Made(
        lambda query: np.asarray(made.search(query, NEAREST, threads=1).keys, np.int64),
        lambda: _written(folder / "usearch", lambda path: made.save(path)),
    )


def make_flat(vectors: np.ndarray, folder: Path, threads: int) -> Made:
    faiss.omp_set_num_threads(threads)
    made = faiss.IndexFlatIP(vectors.shape[1])
    made.add(vectors.astype(np.float32))
    return Made(
        lambda query: made.search(query[None], NEAREST)[1][0],
        lambda: _written(folder / "flat", lambda path: faiss.write_index(made, path)),
    )


def _written(path: Path, write: Callable[[str], object]) -> int:
    write(str(path))
    return path.stat().st_size
