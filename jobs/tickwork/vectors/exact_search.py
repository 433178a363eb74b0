"""The exact nearest neighbours of stored vectors, found with fast products and certified.

Vectors are float16, so a product of two is exact in float64 whatever the order of its sum (384 products of 22 bits,
in a range of 49: less than the 53 bits a float64 has). That product is the score. Candidates come from matrix products
in a fast format, whose error has a bound: if the bound does not rule out that a row outside the candidates belongs to
them, the row is done again in float32, and with as many candidates as it takes. Equal scores are ordered by id.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tickwork.vectors.device import Device

Vectors = npt.NDArray[np.float16]
Places = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]

BLOCK = 256
BLOCK_BYTES = 64 << 20
"""A product has at most so many rows and bytes. The more rows, the less it costs a row: below some 200, rearranging the
columns for the processor takes longer than multiplying them."""
PART = 64
"""Rows of a product that are gone through together: memory of their size is used again, larger pieces are not."""
GROUP = 64
"""Columns of which only the largest is looked at first: the C largest numbers lie in C such groups. A power of two."""
PAIRS_AT_ONCE = 8192
PART_OF_NORMS = 4096
_FLOAT32_ERROR = 1e-7
"""Generous bound of the error of a float32 product of two unit vectors, for each of their numbers (u = 6e-8)."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Scores of single pairs: the place of the row, the place of the column, the exact score."""

    rows: Places
    columns: Places
    scores: Scores


class ExactSearch:
    """All vectors of a corpus, `vectors` of shape (n, dim), to find the nearest of any of them; places are row numbers.

    Rows should be in the order of the ids they belong to: equal scores are ordered by place.
    """

    def __init__(self, vectors: Vectors, device: Device) -> None:
        self.count, self.dim = vectors.shape
        self._where = device.torch_device
        # A GPU multiplies float16 as fast as bfloat16, and with float16 nothing is rounded.
        self._dtype = torch.float16 if device.is_gpu and device.dtype != torch.float32 else device.dtype
        self._stored = torch.from_numpy(np.array(vectors)).to(self._where)
        fast = self._stored.to(self._dtype)
        # As columns, which is how they are multiplied, and one piece of memory for all products: getting it from the
        # system each time costs as much as the product.
        self._columns = fast.T.contiguous()
        self._room = torch.empty(0, dtype=self._dtype, device=self._where)
        norms = torch.empty(3, self.count, device=self._where)
        for start in range(0, self.count, PART_OF_NORMS):
            part = slice(start, start + PART_OF_NORMS)
            exact, rounded = self._stored[part].float(), fast[part].float()
            for place, numbers in enumerate((exact, rounded, exact - rounded)):
                norms[place, part] = numbers.norm(dim=1)
        exact_norms, rounded_norms, rounding = norms
        self._largest = float(exact_norms.max()) if self.count else 1.0
        self._float32_error = max(1e-4, _FLOAT32_ERROR * self.dim) * self._largest**2
        # |x.y - x'.y'| <= |x - x'| |y| + |x'| |y - y'|, with x' and y' what the fast format makes of them.
        worst = float(rounding.max()) if self.count else 0.0
        self._error = rounding * self._largest + rounded_norms * worst + self._float32_error
        self._unit_roundoff = torch.finfo(self._dtype).eps

    def nearest(self, rows: Places, k: int) -> tuple[Places, Scores]:
        """The `k` nearest of each of `rows`, itself left out, best first: their places and scores, (len(rows), k).

        With fewer than `k` others the rest is place -1, score -inf.
        """
        k_there = min(k, self.count - 1)
        places = np.full((len(rows), k), -1, np.int64)
        scores = np.full((len(rows), k), -np.inf)
        for block in self._blocks(len(rows), self.count) if k_there > 0 else ():
            found, found_scores = self._block(torch.from_numpy(rows[block]).to(self._where), k_there)
            places[block, :k_there] = found.cpu().numpy()
            scores[block, :k_there] = found_scores.cpu().numpy()
        return places, scores

    def above(self, rows: Places, columns: Places, floors: Scores) -> Iterator[Pairs]:
        """All pairs of a row of `rows` and a column of `columns` whose score is at least the column's floor."""
        right = torch.from_numpy(columns).to(self._where)
        floor = torch.from_numpy(floors).to(self._where)
        # What a result was rounded by is a share of it, and a result that may reach the floor is about the floor.
        slack = self._error[right] + self._unit_roundoff * (floor.abs() + 0.01).nan_to_num(posinf=1.0)
        reach = self._down((floor - slack).to(torch.float32))
        those = self._columns[:, right]
        for block in self._blocks(len(rows), len(columns)):
            left = torch.from_numpy(rows[block]).to(self._where)
            at, to = _where_true(self._products(left, those) >= reach)
            for first in range(0, len(at), PAIRS_AT_ONCE):
                some = slice(first, first + PAIRS_AT_ONCE)
                pair_rows, pair_columns = left[at[some]], right[to[some]]
                scores = self._score(pair_rows, pair_columns)
                good = scores >= floor[to[some]]
                yield Pairs(pair_rows[good].cpu().numpy(), pair_columns[good].cpu().numpy(), scores[good].cpu().numpy())

    def _blocks(self, rows: int, columns: int) -> Iterator[slice]:
        """Slices of `rows` whose products with `columns` are of the right size."""
        bytes_a_row = max(1, columns * self._dtype.itemsize)
        step = BLOCK if self._where.type == "cuda" else max(16, min(BLOCK, BLOCK_BYTES // bytes_a_row))
        return (slice(start, start + step) for start in range(0, rows, step))

    def _products(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """The fast products of rows with columns, until the next ones are asked for."""
        size = len(rows) * columns.shape[1]
        if len(self._room) < size:
            self._room = torch.empty(size, dtype=self._dtype, device=self._where)
        room = self._room[:size].view(len(rows), columns.shape[1])
        return torch.mm(self._columns[:, rows].T.contiguous(), columns, out=room)

    def _down(self, numbers: torch.Tensor) -> torch.Tensor:
        """`numbers` in the fast format, none of them larger than before."""
        margin = self._unit_roundoff * numbers.abs().clamp(min=1e-6)
        return (numbers - margin).to(self._dtype)

    def _score(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        return (self._stored[rows].double() * self._stored[columns].double()).sum(1)

    def _block(self, rows: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        products = self._products(rows, self._columns)
        products[torch.arange(len(rows), device=self._where), rows] = -torch.inf
        best = torch.empty((len(rows), k), dtype=torch.int64, device=self._where)
        best_scores = torch.empty((len(rows), k), dtype=torch.float64, device=self._where)
        doubtful = [torch.zeros(0, dtype=torch.int64, device=self._where)]
        for start in range(0, len(rows), PART):
            part = slice(start, start + PART)
            best[part], best_scores[part], doubt = self._choose(products[part], rows[part], k, k + k // 2 + 4)
            doubtful.append(start + doubt)
        again = torch.cat(doubtful)
        if len(again):
            best[again], best_scores[again], doubt = self._choose(products[again], rows[again], k, 8 * k)
            again = again[doubt]
        if len(again):
            best[again], best_scores[again] = self._certain(rows[again], k)
        return best, best_scores

    def _choose(
        self, products: torch.Tensor, rows: torch.Tensor, k: int, wanted: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The nearest of rows among `wanted` candidates each, and which of the rows may have others."""
        wanted = min(wanted, self.count)
        columns, bound = _largest(products, wanted)
        columns = columns.sort(dim=1).values
        scores = torch.bmm(self._stored[columns].double(), self._stored[rows].double().unsqueeze(2)).squeeze(2)
        scores[columns == rows.unsqueeze(1)] = -torch.inf
        order = scores.sort(dim=1, descending=True, stable=True)
        best, best_scores = columns.gather(1, order.indices)[:, :k], order.values[:, :k]
        if wanted == self.count:
            return best, best_scores, rows[:0]
        # Every row outside has a fast product of at most `bound`; so much larger may its score be.
        outside = bound.double() + self._error[rows] + self._unit_roundoff * bound.double().abs()
        return best, best_scores, (best_scores[:, -1] <= outside).nonzero().flatten()

    def _certain(self, rows: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The nearest of rows by float32, each with every other that may be among them."""
        products = self._stored[rows].float() @ self._stored.float().T
        products[torch.arange(len(rows), device=self._where), rows] = -torch.inf
        reach = products.topk(k, dim=1).values[:, -1] - 2 * self._float32_error
        best, best_scores = [], []
        for row, line, least in zip(rows, products, reach, strict=True):
            columns = (line >= least).nonzero().flatten()
            scores = self._stored[columns].double() @ self._stored[row].double()
            order = scores.sort(descending=True, stable=True)
            best.append(columns[order.indices[:k]])
            best_scores.append(order.values[:k])
        return torch.stack(best), torch.stack(best_scores)


def _where_true(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns where a matrix of booleans, most of them false, is true."""
    # In main memory NumPy skips what is false ten times as fast.
    flat = mask.flatten().nonzero().flatten() if mask.is_cuda else torch.from_numpy(np.flatnonzero(mask.numpy()))
    return flat // mask.shape[1], flat % mask.shape[1]


def _largest(products: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns of the `count` largest numbers of each row, in no order, and the smallest of these numbers."""
    rows, width = products.shape
    groups = width // GROUP
    if groups <= 2 * count:
        found = products.topk(count, dim=1, sorted=False)
        return found.indices, found.values.min(dim=1).values
    # A column in every `groups` is one group's: whole stretches of memory are then compared with each other.
    whole = products[:, : groups * GROUP].view(rows, GROUP, groups)
    halved, half = whole, GROUP
    while half > 1:
        half //= 2
        halved = torch.maximum(halved[:, :half], halved[:, half : 2 * half])
    chosen = halved[:, 0].topk(count, dim=1, sorted=False).indices.unsqueeze(1)
    inside = whole.gather(2, chosen.expand(-1, GROUP, -1)).view(rows, GROUP * count)
    offsets = torch.arange(GROUP, device=products.device).view(1, GROUP, 1) * groups
    columns = (chosen + offsets).view(rows, GROUP * count)
    rest = width - groups * GROUP
    if rest:
        inside = torch.cat([inside, products[:, groups * GROUP :]], dim=1)
        tail = torch.arange(groups * GROUP, width, device=products.device).expand(rows, -1)
        columns = torch.cat([columns, tail], dim=1)
    found = inside.topk(count, dim=1, sorted=False)
    return columns.gather(1, found.indices), found.values.min(dim=1).values
