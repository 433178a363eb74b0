"""The vectors of a generation as a matrix, and how two of them differ."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tickwork.generation.meta import IDS, VECTORS

Ids = npt.NDArray[np.int64]
Places = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Vectors (n, dim) and the ids (n,) they belong to, ascending."""

    ids: Ids
    vectors: Vectors

    @classmethod
    def load(cls, folder: Path) -> Matrix:
        """Map the matrix of a generation."""
        return cls(np.load(folder / IDS), np.load(folder / VECTORS, mmap_mode="r"))


@dataclass(frozen=True, slots=True)
class Difference:
    """What is not in both of two matrices: ids only or otherwise in the old, places only or otherwise in the new."""

    removed: Ids
    added: Places


def difference(old: Matrix, new: Matrix) -> Difference:
    """How `new` differs from `old`; an item whose vector changed is both removed and added."""
    kept_ids, in_old, in_new = np.intersect1d(old.ids, new.ids, assume_unique=True, return_indices=True)
    same = (old.vectors[in_old].view(np.uint16) == new.vectors[in_new].view(np.uint16)).all(axis=1)
    unchanged = kept_ids[same]
    return Difference(
        removed=np.setdiff1d(old.ids, unchanged, assume_unique=True),
        added=np.flatnonzero(~np.isin(new.ids, unchanged, assume_unique=True)),
    )
