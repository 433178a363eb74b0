"""What a job yields, and how much of it a pass may do."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of work whose data and progress are already committed, in one transaction.

    `items` is what the budget and the ledger count (records, repositories, rows), `size` is bytes received, `note`
    goes to the progress display. A unit that only put something off is no `progress`: a job that does nothing else
    for days has stalled.
    """

    items: int = 1
    size: int = 0
    note: str = ""
    progress: bool = True


@dataclass(slots=True)
class Budget:
    """The bounds of one pass: at most `items`, `seconds` and `size` bytes; None leaves that one open."""

    items: int | None = None
    seconds: float | None = None
    size: int | None = None
    clock: Callable[[], float] = time.monotonic
    spent_items: int = field(default=0, init=False)
    spent_size: int = field(default=0, init=False)
    started: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def spend(self, unit: Unit) -> None:
        """Count a committed unit."""
        self.spent_items += unit.items
        self.spent_size += unit.size

    @property
    def remaining(self) -> int | None:
        """Items that may still be claimed, or None without a bound on items."""
        return None if self.items is None else max(0, self.items - self.spent_items)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the time bound, or None without one; never negative."""
        return None if self.seconds is None else max(0.0, self.started + self.seconds - self.clock())

    def exhausted(self) -> str:
        """The bound that was reached, in words, or an empty string."""
        if self.remaining == 0:
            return f"bound reached: {self.items} {'item' if self.items == 1 else 'items'}"
        if self.seconds_left == 0:
            return f"bound reached: {self.seconds:g} seconds"
        if self.size is not None and self.spent_size >= self.size:
            return f"bound reached: {self.size} bytes"
        return ""
