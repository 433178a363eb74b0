"""The nearest of each: the same as brute force in float64 gives, whatever the vectors, ties by id."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tickwork.vectors import exact_search as module
from tickwork.vectors.device import Device, open_device
from tickwork.vectors.exact_search import ExactSearch

Vectors = npt.NDArray[np.float16]
FORMATS = (torch.float32, torch.bfloat16)


def on_cpu(dtype: torch.dtype) -> Device:
    return open_device("cpu", 1, str(dtype).removeprefix("torch."))


def unit(rows: npt.NDArray[Any]) -> Vectors:
    long = np.asarray(rows, np.float64)
    norms = np.linalg.norm(long, axis=1, keepdims=True)
    return (long / np.where(norms > 0, norms, 1)).astype(np.float16)


KINDS = ("scattered", "near-duplicates", "duplicates", "all equal", "few directions", "opposite")


def vectors(kind: str, n: int, dim: int, seed: int) -> Vectors:
    """`n` unit vectors that are easy, or hard, to tell apart."""
    rng = np.random.default_rng(seed)
    if kind == "near-duplicates":  # far nearer to each other than bfloat16 can tell
        return unit(rng.standard_normal(dim) + 1e-3 * rng.standard_normal((n, dim)))
    if kind == "duplicates":
        return unit(rng.standard_normal((max(1, n // 3), dim)))[rng.integers(0, max(1, n // 3), n)]
    if kind == "all equal":
        return unit(np.tile(rng.standard_normal(dim), (n, 1)))
    if kind == "few directions":
        return unit(rng.integers(-1, 2, (n, dim)))
    if kind == "opposite":
        return unit(rng.standard_normal(dim) * rng.choice([-1, 1], (n, 1)) + 1e-2 * rng.standard_normal((n, dim)))
    return unit(rng.standard_normal((n, dim)))


def brute_force(all_of: Vectors, rows: list[int], k: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The `k` nearest of `rows` by every product in float64, which is exact for such vectors."""
    places, scores = np.full((len(rows), k), -1, np.int64), np.full((len(rows), k), -np.inf)
    products = all_of[rows].astype(np.float64) @ all_of.astype(np.float64).T
    for at, row in enumerate(rows):
        order = np.lexsort((np.arange(len(all_of)), -products[at]))
        order = order[order != row][:k]
        places[at, : len(order)], scores[at, : len(order)] = order, products[at, order]
    return places, scores


@settings(max_examples=50)
@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 120),
    dim=st.sampled_from([1, 2, 3, 17, 384]),
    k=st.integers(1, 40),
    seed=st.integers(0, 10_000),
    dtype=st.sampled_from(FORMATS),
)
def test_the_nearest_are_those_of_brute_force(
    kind: str, n: int, dim: int, k: int, seed: int, dtype: torch.dtype
) -> None:
    some = vectors(kind, n, dim, seed)
    rows = np.random.default_rng(seed).permutation(n)[:20]
    places, scores = ExactSearch(some, on_cpu(dtype)).nearest(rows, k)
    expected, expected_scores = brute_force(some, rows.tolist(), k)
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_array_equal(scores, expected_scores)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_nearest_of_thousands_are_those_of_brute_force(
    kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many that only the largest of each group of columns is looked at first, in more than one block of rows."""
    monkeypatch.setattr(module, "BLOCK", 32)
    some = vectors(kind, 4001, 24, 5)
    rows = np.arange(0, 4001, 50)
    places, scores = ExactSearch(some, on_cpu(dtype)).nearest(rows, 10)
    expected, expected_scores = brute_force(some, rows.tolist(), 10)
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_array_equal(scores, expected_scores)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("dim", [1024, 4096])
def test_the_nearest_of_long_vectors_are_those_of_brute_force(dim: int, dtype: torch.dtype) -> None:
    some = vectors("near-duplicates", 100, dim, 3)
    places, _ = ExactSearch(some, on_cpu(dtype)).nearest(np.arange(100), 20)
    np.testing.assert_array_equal(places, brute_force(some, list(range(100)), 20)[0])


def test_doubtful_rows_are_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the comparisons above would hold for a search that never had to."""
    done_again: list[int] = []
    certain = ExactSearch._certain
    monkeypatch.setattr(
        ExactSearch, "_certain", lambda self, rows, k: done_again.extend(rows.tolist()) or certain(self, rows, k)
    )
    ExactSearch(vectors("near-duplicates", 300, 64, 3), on_cpu(torch.bfloat16)).nearest(np.arange(300), 5)
    assert len(done_again) > 200
    done_again.clear()
    ExactSearch(vectors("scattered", 300, 64, 3), on_cpu(torch.float32)).nearest(np.arange(300), 5)
    assert len(done_again) < 10


@pytest.mark.parametrize("dtype", FORMATS)
def test_nothing_and_a_single_one_have_no_nearest(dtype: torch.dtype) -> None:
    none = ExactSearch(np.zeros((0, 8), np.float16), on_cpu(dtype))
    places, scores = none.nearest(np.zeros(0, np.int64), 5)
    assert places.shape == scores.shape == (0, 5)
    one = ExactSearch(vectors("scattered", 1, 8, 1), on_cpu(dtype))
    places, scores = one.nearest(np.array([0]), 5)
    assert places.tolist() == [[-1] * 5]
    assert scores.tolist() == [[-np.inf] * 5]
    assert list(none.above(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))) == []


@settings(max_examples=50)
@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(2, 120),
    dim=st.sampled_from([1, 3, 17, 384]),
    seed=st.integers(0, 10_000),
    dtype=st.sampled_from(FORMATS),
    floors=st.sampled_from(["those of the pairs", "none", "unreachable", "zero"]),
)
def test_the_pairs_above_a_floor_are_those_of_brute_force(
    kind: str, n: int, dim: int, seed: int, dtype: torch.dtype, floors: str
) -> None:
    rng = np.random.default_rng(seed)
    some = vectors(kind, n, dim, seed)
    mixed = rng.permutation(n)
    rows, columns = np.sort(mixed[: n // 2]), np.sort(mixed[n // 2 :])
    long = some.astype(np.float64)
    scores = {(r, c): float(long[r] @ long[c]) for r in rows.tolist() for c in columns.tolist()}
    if floors == "those of the pairs":  # a floor that a score just reaches
        floor = np.array([scores[int(rng.choice(rows)), c] if len(rows) else 0.0 for c in columns.tolist()])
    else:
        floor = np.full(len(columns), {"none": -np.inf, "unreachable": 1.5, "zero": 0.0}[floors])
    expected = {pair: score for pair, score in scores.items() if score >= floor[columns.tolist().index(pair[1])]}
    found = {}
    for pairs in ExactSearch(some, on_cpu(dtype)).above(rows, columns, floor):
        for r, c, score in zip(pairs.rows.tolist(), pairs.columns.tolist(), pairs.scores.tolist(), strict=True):
            assert (r, c) not in found, "a pair is given once"
            found[r, c] = score
    assert found == expected


def test_pairs_come_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", 100)
    some = vectors("all equal", 700, 8, 1)
    rows, columns = np.arange(300), np.arange(300, 700)
    portions = list(ExactSearch(some, on_cpu(torch.bfloat16)).above(rows, columns, np.full(400, 0.5)))
    assert max(len(pairs.rows) for pairs in portions) <= 100
    assert sum(len(pairs.rows) for pairs in portions) == 300 * 400
