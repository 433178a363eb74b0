"""Publishing from the generation before gives what publishing everything anew would give, whatever changed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from tests.kits.publish import DIM, Shelf, Vector, agrees, brute_force, index_ids, lists, unit
from tickwork.generation.matrix import Matrix
from tickwork.publish import index as index_stage
from tickwork.publish import similar as similar_stage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(36_000)]

EXAMPLES = 2000 if os.environ.get("TICKWORK_SOAK") else 12
"""Each is of up to six rounds."""
KINDS = ("nudged", "random", "duplicate", "near", "cluster", "equal", "zero", "none")
NEAREST_KEPT = 5


class Round(NamedTuple):
    """What happens between two publications; the numbers are how many books."""

    seed: int
    add: int
    change: int
    delete: int
    kinds: tuple[str, ...]


ROUNDS = st.lists(
    st.builds(
        Round,
        seed=st.integers(0, 2**32),
        add=st.sampled_from([0, 1, 3, 12, 40]),
        change=st.sampled_from([0, 1, 3, 10]),
        delete=st.sampled_from([0, 1, 3, 10, 30]),
        kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=3).map(tuple),
    ),
    min_size=2,
    max_size=6,
)


def drawn(random: np.random.Generator, kind: str, there: list[Vector], before: Vector | None = None) -> Vector | None:
    """A vector of a kind; `there` are those there are, `before` is what it was."""
    if kind == "nudged" and before is not None and before.any():
        return unit(before + 0.02 * random.standard_normal(DIM))
    if kind == "none":
        return None
    if kind == "zero":
        return np.zeros(DIM, np.float16)
    if kind == "equal":
        return unit(np.ones(DIM))
    if kind == "cluster":  # as of texts made from one template
        centre = np.eye(DIM)[random.integers(3)]
        return unit(centre + 0.01 * random.standard_normal(DIM))
    if kind in ("duplicate", "near") and there:
        vector = there[random.integers(len(there))].copy()
        if kind == "near":
            place = random.integers(DIM)
            vector[place] = np.nextafter(vector[place], np.float16(random.choice([-1, 1])))
        return vector
    return unit(random.standard_normal(DIM))


def one_round(shelf: Shelf, do: Round) -> None:
    random = np.random.default_rng(do.seed)
    there = [vector for vector in shelf.given.values() if vector is not None]

    def fresh(before: Vector | None = None) -> Vector | None:
        return drawn(random, do.kinds[random.integers(len(do.kinds))], there, before)

    live = random.permutation(sorted(shelf.words)).tolist()
    deleted, changed = live[: do.delete], live[do.delete : do.delete + do.change]
    shelf.delete(deleted, forget=bool(do.seed % 2))
    shelf.change({identifier: fresh(shelf.given[identifier]) for identifier in changed})
    shelf.add([fresh() for _ in range(do.add)])


def rounds_agree(rounds: list[Round], **vectors: object) -> None:
    """After each round, an increment is what is published anew is, and what plain arithmetic gives."""
    with tempfile.TemporaryDirectory() as home:
        chain = Shelf(Path(home) / "chain", **vectors)
        chain.add([drawn(np.random.default_rng(n), "random", []) for n in range(40)])
        anew = chain.mirror(Path(home) / "anew")
        chain.publish()
        for do in rounds:
            one_round(chain, do)
            increment, rebuilt = chain.publish(), anew.publish("--full")
            agrees(chain, increment)
            agrees(chain, rebuilt)
            assert lists(increment) == lists(rebuilt) == brute_force(Matrix.load(rebuilt.folder), increment.meta.top_k)
            assert index_ids(increment) == index_ids(rebuilt)
            found = increment.meta.index
            assert found.recall >= found.recall_trained - index_stage.MAX_LOST_RECALL
            if found.nprobe == found.nlist and "SQ8" not in found.factory:
                assert found.recall >= 0.995
            assert increment.meta.watermark == rebuilt.meta.watermark
            assert not chain.leftovers()


@pytest.fixture(autouse=True)
def short_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists with so little to spare that deletions leave them short, and increments however much has changed."""
    monkeypatch.setattr(similar_stage, "SPARE", 2)
    monkeypatch.setattr(similar_stage, "FULL_ABOVE", 10)
    monkeypatch.setattr(similar_stage, "UPDATED", 32)
    monkeypatch.setattr(similar_stage, "FOUND", 16)


# To shrink a failure would take longer than all else: the rounds of one are few enough to read.
bounded = settings(max_examples=EXAMPLES, phases=(Phase.explicit, Phase.reuse, Phase.generate))


@bounded
@given(ROUNDS)
@example([Round(n, 3, 10, n, ("nudged",)) for n in range(3)])
@example([Round(1, 12, 0, 0, ("equal",)), Round(2, 12, 0, 10, ("equal",)), Round(3, 0, 3, 30, ("equal", "zero"))])
def test_increments_of_a_flat_index_equal_rebuilds(rounds: list[Round]) -> None:
    rounds_agree(rounds)


@bounded
@given(ROUNDS, st.sampled_from(["IVF4,Flat", "IVF6,SQfp16", "IVF3,SQ8"]))
@example([Round(1, 12, 3, 10, ("duplicate",)), Round(2, 12, 3, 10, ("duplicate", "random"))], "IVF4,Flat")
def test_increments_of_an_inverted_file_equal_rebuilds(rounds: list[Round], factory: str) -> None:
    rounds_agree(rounds, factory=factory, nprobe=4)


def test_an_index_that_cannot_tell_the_new_vectors_apart_is_made_anew(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    shelf = Shelf(tmp_path, factory="IVF3,SQ8", nprobe=3)
    shelf.add([drawn(random, "zero", []) for _ in range(30)])
    shelf.publish()
    shelf.add([drawn(random, "random", []) for _ in range(12)])
    assert shelf.publish().meta.index.trained_on == 42


def test_an_index_that_is_only_changed_for_many_rounds_finds_as_much_as_one_made_anew(tmp_path: Path) -> None:
    dim, random = 32, np.random.default_rng(1)
    centres = random.standard_normal((60, dim))

    def texts(count: int) -> list[Vector]:
        return list(unit(centres[random.integers(60, size=count)] + 0.7 * random.standard_normal((count, dim))))

    chain = Shelf(tmp_path / "chain", factory="IVF48,SQfp16", nprobe=12)
    chain.add(texts(3000))
    anew = chain.mirror(tmp_path / "anew")
    chain.publish()
    for _ in range(5):
        live = random.permutation(sorted(chain.words)).tolist()
        chain.delete(live[:150])
        chain.change(dict(zip(live[150:250], texts(100), strict=True)))
        chain.add(texts(200))
        increment = chain.publish()
        assert increment.meta.index.trained_on == 3000
        agrees(chain, increment)
    rebuilt = anew.publish("--full")
    assert lists(increment) == lists(rebuilt)
    assert 0.9 < rebuilt.meta.index.recall < 1
    assert increment.meta.index.recall == pytest.approx(rebuilt.meta.index.recall, abs=0.005)
